// The bare pipe round trip: starts one program, writes a line to it and reads one line back, again
// and again. Prints one line of JSON: messages, seconds, and the CPU time of both in microseconds.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    fprintf(stderr, "pipe: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_microseconds(int who)
{
    struct rusage usage;
    if (getrusage(who, &usage) < 0)
        fail("getrusage");
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void round_trip(int input, int output, const char *line, size_t length)
{
    static char reply[65536];
    size_t received = 0;
    if (write(input, line, length) != (ssize_t)length)
        fail("write");
    while (received == 0 || reply[received - 1] != '\n') {
        ssize_t taken = read(output, reply + received, sizeof reply - received);
        if (taken <= 0)
            fail("read");
        received += (size_t)taken;
    }
    if (received != length || memcmp(reply, line, length) != 0)
        fail("another line came back");
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fputs("usage: pipe MESSAGES BYTES PROGRAM [ARGUMENT...]\n", stderr);
        return 2;
    }
    uint64_t messages = strtoull(argv[1], NULL, 10);
    size_t length = strtoull(argv[2], NULL, 10);
    int input[2], output[2];
    if (pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0)
        fail("pipe");
    pid_t program = fork();
    if (program < 0)
        fail("fork");
    if (program == 0) {
        // As talkback's have it: the scheduler may treat each session as one of equal rights.
        setsid();
        dup2(input[0], 0);
        dup2(output[1], 1);
        execvp(argv[3], argv + 3);
        fail(argv[3]);
    }
    close(input[0]);
    close(output[1]);
    char *line = malloc(length);
    if (line == NULL || length < 2)
        fail("no memory");
    memset(line, 'A', length);
    line[length - 1] = '\n';
    // The program's start is not part of it; its CPU time is known only at its end, so that the
    // caller takes the difference of two runs.
    round_trip(input[1], output[0], line, length);
    double began = seconds_now();
    for (uint64_t i = 0; i < messages; i++)
        round_trip(input[1], output[0], line, length);
    double seconds = seconds_now() - began;
    close(input[1]);
    if (waitpid(program, NULL, 0) < 0)
        fail("waitpid");
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"cpu_us\": %.0f}\n",
           (unsigned long long)messages, seconds,
           cpu_microseconds(RUSAGE_SELF) + cpu_microseconds(RUSAGE_CHILDREN));
    return 0;
}
