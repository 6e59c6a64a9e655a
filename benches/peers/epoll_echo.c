// A bare echo server on epoll, in one thread: the least work that a TCP server can do a message.
// It answers what it received, without a look at the bytes, and so is the floor that talkback is
// measured against. It is no model of a server: no limits, no timeouts, no metrics.
//
//     epoll_echo PORT        listens on 127.0.0.1; 0 takes a free port and prints it

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024, BATCH = 256, BUFFER_BYTES = 64 * 1024, MAX_FDS = 65536, MAX_SECONDS = 3600 };

// What a connection needs beyond its descriptor. All zero for one that never had a short send.
struct connection {
    char *rest; // What the kernel would not take. While it is set nothing is received.
    size_t rest_len, rest_sent;
    int write_armed; // EPOLLOUT is registered. On edges it costs nothing to leave it there.
};

static struct connection connections[MAX_FDS];
static char buffer[BUFFER_BYTES];
static int epoll_fd;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "epoll_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void end(int fd)
{
    free(connections[fd].rest);
    memset(&connections[fd], 0, sizeof connections[fd]);
    close(fd);
}

// Returns how much the kernel took, 0 if it took nothing for now, -1 if the connection is dead.
static ssize_t send_some(int fd, const char *bytes, size_t len)
{
    ssize_t sent;
    do {
        sent = send(fd, bytes, len, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

// Asks for an event of what the socket is ready for now, which comes behind those of the others.
static int rearm(int fd)
{
    uint32_t out = connections[fd].write_armed ? EPOLLOUT : 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET | out, .data.fd = fd};
    return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

// Keeps what a short send left over, and asks for the edge that says there is room again.
static int keep_rest(int fd, const char *bytes, size_t len)
{
    struct connection *connection = &connections[fd];
    connection->rest = malloc(len);
    if (connection->rest == NULL)
        return -1;
    memcpy(connection->rest, bytes, len);
    connection->rest_len = len;
    connection->rest_sent = 0;
    if (connection->write_armed)
        return 0;
    connection->write_armed = 1;
    return rearm(fd);
}

// Returns 1 once nothing is left over, 0 if some still is, -1 if the connection is dead.
static int send_rest(int fd)
{
    struct connection *connection = &connections[fd];
    while (connection->rest_sent < connection->rest_len) {
        ssize_t sent = send_some(fd, connection->rest + connection->rest_sent,
                                 connection->rest_len - connection->rest_sent);
        if (sent <= 0)
            return (int)sent;
        connection->rest_sent += (size_t)sent;
    }
    free(connection->rest);
    connection->rest = NULL;
    return 1;
}

// One recv and one send an event, so that nobody waits for more than that of a neighbour's. A recv
// shorter than the buffer has drained the socket, unless the peer's end may stand behind the bytes.
static void serve(int fd, uint32_t events)
{
    int flushed = connections[fd].rest == NULL ? 1 : send_rest(fd);
    if (flushed < 0)
        end(fd);
    if (flushed <= 0)
        return;

    ssize_t received = recv(fd, buffer, sizeof buffer, 0);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0) {
        end(fd);
        return;
    }

    ssize_t sent = send_some(fd, buffer, (size_t)received);
    size_t left = sent < 0 ? 0 : (size_t)(received - sent);
    int is_drained = received < (ssize_t)sizeof buffer &&
                     (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0;
    if (sent < 0 || (left > 0 && keep_rest(fd, buffer + sent, left) < 0) ||
        (left == 0 && !is_drained && rearm(fd) < 0))
        end(fd);
}

// Takes all that the kernel has queued, so that a burst costs one wait and not one a connection.
static void accept_queued(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
            continue;
        if (fd < 0)
            return;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        if (fd >= MAX_FDS || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            close(fd);
    }
}

// TCP_NODELAY stands on the listener, as talkback sets it: the connections inherit it for nothing.
static int listen_on(uint16_t port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        fail("cannot make a socket");
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);

    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, len) < 0)
        fail("cannot bind");
    if (listen(listener, BACKLOG) < 0)
        fail("cannot listen");
    if (port == 0 && getsockname(listener, (struct sockaddr *)&address, &len) == 0) {
        printf("%d\n", ntohs(address.sin_port));
        fflush(stdout);
    }
    return listener;
}

int main(int argc, char **argv)
{
    char *rest = NULL;
    long port = argc == 2 ? strtol(argv[1], &rest, 10) : -1;
    if (rest == NULL || rest == argv[1] || *rest != '\0' || port < 0 || port > 65535) {
        fprintf(stderr, "usage: epoll_echo PORT (0 = a free one, printed)\n");
        return 2;
    }

    // SIGTERM ends it, and if nobody remembers to send one, this does.
    alarm(MAX_SECONDS);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < MAX_FDS ? files.rlim_max : MAX_FDS;
        setrlimit(RLIMIT_NOFILE, &files);
    }

    int listener = listen_on((uint16_t)port);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("cannot use epoll");

    static struct epoll_event events[BATCH];
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, BATCH, -1);
        if (ready < 0 && errno != EINTR)
            fail("cannot wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_queued(listener);
            else
                serve(events[i].data.fd, events[i].events);
        }
    }
}
