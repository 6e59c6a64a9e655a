//! The kernel's own timeout of a send, which must not stand in the way of `send_timeout`.

use crate::harness::Server;

#[test]
fn any_send_timeout_can_be_started_with() {
    for send_timeout in ["0s", "1ms", "597h", "8760h"] {
        let server = Server::start(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [limits]\nsend_timeout = \"{send_timeout}\"\n"
        ));
        server.connect().echo("hello 你好");
    }
}
