// What the programs of load have in common: their clock, their options, and how they connect.

#ifndef CLIENT_H
#define CLIENT_H

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// Where a server is.
struct server {
    struct sockaddr_storage address;
    socklen_t address_len;
};

static inline _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static inline uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *rest;
    errno = 0;
    unsigned long long value = strtoull(text, &rest, 10);
    if (errno != 0 || rest == text || *rest != '\0' || *text == '-' || value < min || value > max)
        fail("--%s must be %llu to %llu, not `%s`", name, (unsigned long long)min,
             (unsigned long long)max, text);
    return value;
}

static inline struct server find_server(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0)
        fail("%s %s is no address: %s", host, port, gai_strerror(error));
    struct server server = {.address_len = found->ai_addrlen};
    memcpy(&server.address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return server;
}

// Blocks until the handshake is done, which on loopback is at once.
static inline int connect_to(const struct server *server)
{
    int fd = socket(server->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("cannot make a socket: %s", strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)&server->address, server->address_len) < 0)
        fail("cannot connect: %s", strerror(errno));
    return fd;
}

static inline void out_of_time(int signal)
{
    (void)signal;
    static const char text[] = "not done within --seconds-max\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored; // There is nobody left to tell.
    _exit(1);
}

// As many descriptors as this user may have, and an end for a run that would have none.
static inline void set_bounds(uint64_t seconds_max)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGALRM, out_of_time);
    alarm((unsigned)seconds_max);
}

// Waits for events, at most until then; UINT64_MAX = for as long as it takes. How many came.
static inline int await(int epoll_fd, struct epoll_event *events, int room, uint64_t until)
{
    uint64_t time = now(), left = until > time ? until - time : 0;
    struct timespec patience = {.tv_sec = (time_t)(left / 1000000000u),
                                .tv_nsec = (long)(left % 1000000000u)};
    int ready = epoll_pwait2(epoll_fd, events, room, until == UINT64_MAX ? NULL : &patience, NULL);
    if (ready < 0 && errno != EINTR)
        fail("cannot wait: %s", strerror(errno));
    return ready < 0 ? 0 : ready;
}

// Waits for a line of input or its end.
static inline void wait_at_gate(void)
{
    fflush(stdout);
    int c;
    while ((c = getchar()) != EOF && c != '\n')
        ;
}

#endif
