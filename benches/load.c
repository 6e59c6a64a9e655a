// A closed-loop load: every connection sends one batch of messages, waits for all of its bytes to
// come back, compares them, and only then sends the next. One thread, bounded in count and time.
// Prints one line of JSON: messages, seconds, and the latency of a batch in microseconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
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

enum { EVENTS = 256, RECV_BYTES = 256 * 1024, SUB_BUCKETS = 64, BUCKETS = 64 * SUB_BUCKETS };
static const uint64_t MAX_TEXT_BYTES = 256u << 20;

static const char USAGE[] =
    "usage: load HOST PORT [--connections 64] [--messages 100000] [--bytes 64] [--line]\n"
    "            [--pipeline 1] [--connect-each] [--seconds-max 60] [--gate]\n"
    "  HOST            a numeric address\n"
    "  --messages      all connections together, rounded up to whole batches\n"
    "  --bytes         of one message, its line ending included\n"
    "  --line          each message ends with a line feed\n"
    "  --pipeline      messages a batch: sent at once, awaited together\n"
    "  --connect-each  a new connection for every batch, its cost included\n"
    "  --gate          print `ready` once all are connected and have had one answer, and wait for\n"
    "                  a line of input before the messages and for another before closing\n";

struct options {
    const char *host, *port;
    uint64_t connections, messages, bytes, pipeline, seconds_max;
    int line, connect_each, gate;
};

struct connection {
    int fd;
    int write_armed;
    char *batch;
    size_t sent, received;
    uint64_t began;
};

static struct options options = {
    .connections = 64, .messages = 100000, .bytes = 64, .pipeline = 1, .seconds_max = 60};
static struct sockaddr_storage address;
static socklen_t address_len;
static struct connection *connections;
static size_t batch_bytes;
static int epoll_fd;
static uint64_t to_begin, to_finish;
static uint64_t latency[BUCKETS];

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static void out_of_time(int signal)
{
    (void)signal;
    static const char text[] = "load: not done within --seconds-max\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored; // There is nobody left to tell.
    _exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

// Buckets of powers of two in 64 parts each: within 1.6 % at any size, in constant memory.
static size_t bucket_of(uint64_t nanoseconds)
{
    if (nanoseconds < SUB_BUCKETS)
        return nanoseconds;
    unsigned shift = 63u - (unsigned)__builtin_clzll(nanoseconds) - 6u;
    return (shift + 1) * SUB_BUCKETS + ((nanoseconds >> shift) - SUB_BUCKETS);
}

static double microseconds_of(size_t bucket)
{
    if (bucket < SUB_BUCKETS)
        return (double)bucket / 1000.0;
    size_t shift = bucket / SUB_BUCKETS - 1;
    return (double)((uint64_t)(bucket % SUB_BUCKETS + SUB_BUCKETS) << shift) / 1000.0;
}

static double percentile(double share)
{
    uint64_t total = 0, below = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        total += latency[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        below += latency[i];
        if (below > 0 && (double)below >= share * (double)total)
            return microseconds_of(i);
    }
    return 0;
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll_fd, operation, connection->fd, &event) < 0)
        fail("cannot watch a connection: %s", strerror(errno));
}

// Blocks until the handshake is done, which on loopback is at once.
static void open_connection(struct connection *connection)
{
    connection->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        fail("cannot make a socket: %s", strerror(errno));
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(connection->fd, (struct sockaddr *)&address, address_len) < 0)
        fail("cannot connect to %s:%s: %s", options.host, options.port, strerror(errno));
    connection->write_armed = 0;
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void send_more(struct connection *connection)
{
    while (connection->sent < batch_bytes) {
        ssize_t sent = send(connection->fd, connection->batch + connection->sent,
                            batch_bytes - connection->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0 && errno != EINTR)
            fail("cannot send: %s", strerror(errno));
        if (sent > 0)
            connection->sent += (size_t)sent;
    }
    int blocked = connection->sent < batch_bytes;
    if (blocked != connection->write_armed)
        watch(connection, EPOLL_CTL_MOD, EPOLLIN | (blocked ? EPOLLOUT : 0));
    connection->write_armed = blocked;
}

static void begin_batch(struct connection *connection)
{
    if (to_begin == 0)
        return;
    to_begin--;
    connection->began = now();
    connection->sent = connection->received = 0;
    if (options.connect_each)
        open_connection(connection);
    send_more(connection);
}

static void finish_batch(struct connection *connection)
{
    latency[bucket_of(now() - connection->began)]++;
    to_finish--;
    if (options.connect_each) {
        close(connection->fd);
        connection->fd = -1;
    }
    begin_batch(connection);
}

// One recv an event: the set is level-triggered, so that what is left comes back by itself.
static void receive(struct connection *connection)
{
    static char buffer[RECV_BYTES];
    ssize_t received = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (received < 0)
        fail("cannot receive: %s", strerror(errno));
    if (received == 0)
        fail("the server closed a connection, %zu of %zu bytes came back", connection->received,
             batch_bytes);
    if ((size_t)received > connection->sent - connection->received)
        fail("%zu bytes came back, only %zu were sent",
             connection->received + (size_t)received, connection->sent);
    if (memcmp(buffer, connection->batch + connection->received, (size_t)received) != 0)
        fail("other bytes came back than were sent");
    connection->received += (size_t)received;
    if (connection->received == batch_bytes)
        finish_batch(connection);
}

static void exchange(uint64_t batches)
{
    static struct epoll_event events[EVENTS];
    to_begin = to_finish = batches;
    for (uint64_t i = 0; i < options.connections; i++)
        begin_batch(&connections[i]);
    while (to_finish > 0) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            fail("cannot wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(connection);
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                receive(connection);
        }
    }
}

// Neighbours send different letters, so that an answer to the wrong connection is noticed. No
// message can be a lower-case word such as `exit`.
static void write_batches(void)
{
    batch_bytes = options.bytes * options.pipeline;
    char *text = malloc(batch_bytes * options.connections);
    connections = calloc(options.connections, sizeof *connections);
    if (text == NULL || connections == NULL)
        fail("no memory for %llu connections", (unsigned long long)options.connections);
    for (uint64_t i = 0; i < options.connections; i++) {
        connections[i].fd = -1;
        connections[i].batch = text + i * batch_bytes;
        for (uint64_t m = 0; m < options.pipeline; m++) {
            char *message = connections[i].batch + m * options.bytes;
            memset(message, 'A' + (int)((i + m) % 26), options.bytes);
            if (options.line)
                message[options.bytes - 1] = '\n';
        }
    }
}

static void wait_at_gate(void)
{
    fflush(stdout);
    int c;
    while ((c = getchar()) != EOF && c != '\n')
        ;
}

static uint64_t number(const char *name, const char *text, uint64_t max)
{
    char *rest;
    errno = 0;
    unsigned long long value = strtoull(text, &rest, 10);
    if (errno != 0 || rest == text || *rest != '\0' || *text == '-' || value < 1 || value > max)
        fail("--%s must be 1 to %llu, not `%s`", name, (unsigned long long)max, text);
    return value;
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'}, {"messages", required_argument, NULL, 'm'},
        {"bytes", required_argument, NULL, 'b'},       {"pipeline", required_argument, NULL, 'p'},
        {"seconds-max", required_argument, NULL, 's'}, {"line", no_argument, NULL, 'l'},
        {"connect-each", no_argument, NULL, 'e'},      {"gate", no_argument, NULL, 'g'},
        {"help", no_argument, NULL, 'h'},              {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'c': options.connections = number("connections", optarg, 60000); break;
        case 'm': options.messages = number("messages", optarg, 1000000000); break;
        case 'b': options.bytes = number("bytes", optarg, 16 << 20); break;
        case 'p': options.pipeline = number("pipeline", optarg, 10000); break;
        case 's': options.seconds_max = number("seconds-max", optarg, 3600); break;
        case 'l': options.line = 1; break;
        case 'e': options.connect_each = 1; break;
        case 'g': options.gate = 1; break;
        case 'h': fputs(USAGE, stdout); exit(0);
        default: fputs(USAGE, stderr); exit(2);
        }
    }
    if (argc - optind != 2) {
        fputs(USAGE, stderr);
        exit(2);
    }
    options.host = argv[optind];
    options.port = argv[optind + 1];
    if (options.connections * options.bytes * options.pipeline > MAX_TEXT_BYTES)
        fail("--connections × --bytes × --pipeline is above 256 MiB");
}

static void find_address(void)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int error = getaddrinfo(options.host, options.port, &hints, &found);
    if (error != 0)
        fail("%s %s is no address: %s", options.host, options.port, gai_strerror(error));
    memcpy(&address, found->ai_addr, found->ai_addrlen);
    address_len = found->ai_addrlen;
    freeaddrinfo(found);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    find_address();
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGALRM, out_of_time);
    alarm((unsigned)options.seconds_max);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail("cannot use epoll: %s", strerror(errno));
    write_batches();

    if (!options.connect_each) {
        for (uint64_t i = 0; i < options.connections; i++)
            open_connection(&connections[i]);
        exchange(options.connections);
        memset(latency, 0, sizeof latency);
    }
    if (options.gate) {
        puts("ready");
        wait_at_gate();
    }

    uint64_t batches = (options.messages + options.pipeline - 1) / options.pipeline;
    uint64_t began = now();
    exchange(batches);
    double seconds = (double)(now() - began) / 1e9;
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)(batches * options.pipeline), seconds, percentile(0.50),
           percentile(0.99));
    if (options.gate)
        wait_at_gate();
    return 0;
}
