// A bare pool of one program on epoll, in one thread: what a client sends goes into the program's
// input, what the program writes goes to whom it was asked for last. The least work that a message
// can cost on this way, and so what talkback's pool is measured against. It is no model of a
// server: one client, no lines, no limits, no timeouts, nobody who sees to the program.
//
//     epoll_pool PORT PROGRAM [ARGUMENT...]        listens on 127.0.0.1

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 64, BATCH = 64, BUFFER_BYTES = 64 * 1024 };

static char buffer[BUFFER_BYTES];

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "epoll_pool: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int epoll_fd, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

// Starts the program and gives our ends of its pipes.
static void start(char **words, int *input, int *output)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        fail("pipe");
    pid_t program = fork();
    if (program < 0)
        fail("fork");
    if (program == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        // As talkback's have it: the scheduler may treat each session as one of equal rights.
        setsid();
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(words[0], words);
        fail(words[0]);
    }
    close(in[0]);
    close(out[1]);
    if (fcntl(in[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) < 0)
        fail("fcntl");
    *input = in[1];
    *output = out[0];
}

static int listen_on(const char *port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        fail("listen");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: epoll_pool PORT PROGRAM [ARGUMENT...]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int input, output, client = -1, one = 1;
    start(argv + 2, &input, &output);
    int listener = listen_on(argv[1]), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll_fd, listener, EPOLLIN);
    watch(epoll_fd, output, EPOLLIN | EPOLLET);
    for (;;) {
        struct epoll_event events[BATCH];
        int count = epoll_wait(epoll_fd, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                watch(epoll_fd, accepted, EPOLLIN | EPOLLRDHUP | EPOLLET);
            } else if (fd == output) {
                ssize_t taken = read(output, buffer, sizeof buffer);
                if (taken > 0 && send(client, buffer, (size_t)taken, MSG_NOSIGNAL) != taken)
                    close(client);
            } else {
                ssize_t taken = recv(fd, buffer, sizeof buffer, 0);
                client = fd;
                if (taken <= 0)
                    close(fd);
                else if (write(input, buffer, (size_t)taken) != taken)
                    fail("write");
            }
        }
    }
}
