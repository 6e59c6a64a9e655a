"""PyVISA with its pure Python backend sets and reads the simulated power supply.

Usage: pyvisa_supply.py PORT. Prints what it was told, a line each.
"""

import sys

import pyvisa


def main(port):
    manager = pyvisa.ResourceManager("@py")
    resource = f"TCPIP::127.0.0.1::{port}::SOCKET"
    supply = manager.open_resource(resource)
    supply.timeout = 15_000
    supply.read_termination = supply.write_termination = "\n"

    print("identity", supply.query("*IDN?"))
    supply.write("*RST")
    print("at rest", supply.query("VOLT?"), supply.query("MEAS:VOLT?"), supply.query("OUTP?"))

    supply.write("VOLT 12.5")
    supply.write("SOURCE:CURRENT:LEVEL 2")
    print("set", supply.query("volt?"), supply.query("CURR?"))
    print("off", supply.query("MEAS:VOLT?"), supply.query("MEAS:CURR?"))
    supply.write("OUTP ON")
    print("done", supply.query("*OPC?"))
    print("on", supply.query("OUTP?"), supply.query("MEASURE:VOLTAGE:DC?"))
    amps = float(supply.query("MEAS:CURR?"))
    print("drawn", 0.040 <= amps <= 0.049)

    supply.write("VOLT 30.5")
    print("error", supply.query("SYST:ERR?"))
    print("and then", supply.query("SYSTEM:ERROR:NEXT?"))
    supply.write("MAKE:COFFEE 1")
    print("error", supply.query("SYST:ERR?"))
    print("unchanged", supply.query("VOLT?"))

    # What one client sets is not what another one reads.
    other = manager.open_resource(resource)
    other.timeout = 15_000
    # As instruments often want it.
    other.read_termination, other.write_termination = "\n", "\r\n"
    print("another", other.query("VOLT?"))
    other.close()
    supply.write("OUTP OFF")
    print("off", supply.query("MEAS:VOLT?"))
    supply.close()
    manager.close()


main(int(sys.argv[1]))
