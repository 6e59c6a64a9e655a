// A load that compares every byte that comes back. In a closed loop every connection sends one
// batch of messages and, once all of it has come back, the next; with --rate each message has its
// time, and its latency counts from then on. One thread, bounded in count and time. Prints one line
// of JSON: messages, seconds, and the latency of a batch or message in microseconds.

#define _GNU_SOURCE
#include <getopt.h>
#include <sys/prctl.h>

#include "client.h"

enum { EVENTS = 256, RECV_BYTES = 256 * 1024, SUB_BUCKETS = 64, BUCKETS = 64 * SUB_BUCKETS };
static const uint64_t MAX_TEXT_BYTES = 256u << 20;

static const char USAGE[] =
    "usage: load HOST PORT [--connections 64] [--messages 100000] [--bytes 64] [--line] [--same]\n"
    "            [--pipeline 1 | --connect-each | --rate N] [--seconds-max 60] [--gate]\n"
    "  HOST            a numeric address\n"
    "  --messages      all connections together, rounded up to whole batches\n"
    "  --bytes         of one message, its line ending included\n"
    "  --line          each message ends with a line feed\n"
    "  --same          all messages are the same\n"
    "  --pipeline      messages a batch: sent at once, awaited together\n"
    "  --connect-each  a new connection for every batch, its cost included\n"
    "  --rate          messages a second, all connections together, evenly spread, whether or not\n"
    "                  the ones before have been answered\n"
    "  --gate          print `ready` once all are connected and have had one answer, and wait for\n"
    "                  a line of input before the messages and for another before closing\n";

struct options {
    const char *host, *port;
    uint64_t connections, messages, bytes, pipeline, rate, seconds_max;
    int line, same, connect_each, gate;
};

struct connection {
    int fd;
    int write_armed;
    char *batch;
    size_t sent, received;
    uint64_t began, replies;
};

static struct options options = {
    .connections = 64, .messages = 100000, .bytes = 64, .pipeline = 1, .seconds_max = 60};
static struct server server;
static struct connection *connections;
static size_t batch_bytes;
static int epoll_fd;
static uint64_t to_begin, to_finish;
static uint64_t schedule_began; // 0 = the loop is closed.
static uint64_t latency[BUCKETS];

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

static void open_connection(struct connection *connection)
{
    connection->fd = connect_to(&server);
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

// Message `n` of all is that of connection `n` modulo their number.
static uint64_t due(uint64_t n)
{
    return schedule_began + n * 1000000000u / options.rate;
}

// Counts the messages that are answered whole; `sent` and `received` go on from the next one.
static void finish_scheduled(struct connection *connection)
{
    uint64_t time = now(), first = (uint64_t)(connection - connections);
    while (connection->received >= batch_bytes) {
        connection->received -= batch_bytes;
        connection->sent -= batch_bytes;
        latency[bucket_of(time - due(connection->replies++ * options.connections + first))]++;
        to_finish--;
    }
}

static void compare(const struct connection *connection, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t from = (connection->received + at) % batch_bytes;
        size_t part = batch_bytes - from < length - at ? batch_bytes - from : length - at;
        if (memcmp(bytes + at, connection->batch + from, part) != 0)
            fail("other bytes came back than were sent");
        at += part;
    }
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
             connection->sent);
    if ((size_t)received > connection->sent - connection->received)
        fail("%zu bytes came back, only %zu were sent",
             connection->received + (size_t)received, connection->sent);
    compare(connection, buffer, (size_t)received);
    connection->received += (size_t)received;
    if (schedule_began != 0)
        finish_scheduled(connection);
    else if (connection->received == batch_bytes)
        finish_batch(connection);
}

static void take_events(uint64_t until)
{
    static struct epoll_event events[EVENTS];
    int ready = await(epoll_fd, events, EVENTS, until);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            send_more(connection);
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            receive(connection);
    }
}

static void exchange(uint64_t batches)
{
    to_begin = to_finish = batches;
    for (uint64_t i = 0; i < options.connections; i++)
        begin_batch(&connections[i]);
    while (to_finish > 0)
        take_events(UINT64_MAX);
}

static void send_scheduled(struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->batch, batch_bytes,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        fail("cannot send: %s", strerror(errno));
    if (sent != (ssize_t)batch_bytes)
        fail("the kernel holds all it can of unanswered messages: --rate is too high");
    connection->sent += batch_bytes;
}

// What one late answer delays is the messages behind it, and each of them says so: its latency
// counts from when it was due, not from when it could be sent.
static void keep_schedule(uint64_t messages)
{
    for (uint64_t i = 0; i < options.connections; i++)
        connections[i].sent = connections[i].received = 0;
    // The kernel's 50 µs of slack would be most of what is measured.
    prctl(PR_SET_TIMERSLACK, 1);
    schedule_began = now();
    to_finish = messages;
    for (uint64_t n = 0; to_finish > 0;) {
        for (; n < messages && due(n) <= now(); n++)
            send_scheduled(&connections[n % options.connections]);
        take_events(n < messages ? due(n) : UINT64_MAX);
    }
}

// Unless told otherwise neighbours send different letters, so that an answer to the wrong connection is noticed. No
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
            memset(message, options.same ? 'A' : 'A' + (int)((i + m) % 26), options.bytes);
            if (options.line)
                message[options.bytes - 1] = '\n';
        }
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'}, {"messages", required_argument, NULL, 'm'},
        {"bytes", required_argument, NULL, 'b'},       {"pipeline", required_argument, NULL, 'p'},
        {"rate", required_argument, NULL, 'r'},        {"line", no_argument, NULL, 'l'},
        {"seconds-max", required_argument, NULL, 's'}, {"connect-each", no_argument, NULL, 'e'},
        {"gate", no_argument, NULL, 'g'},              {"same", no_argument, NULL, 'a'},
        {"help", no_argument, NULL, 'h'},              {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'c': options.connections = number("connections", optarg, 1, 60000); break;
        case 'm': options.messages = number("messages", optarg, 1, 1000000000); break;
        case 'b': options.bytes = number("bytes", optarg, 1, 16 << 20); break;
        case 'p': options.pipeline = number("pipeline", optarg, 1, 10000); break;
        case 'r': options.rate = number("rate", optarg, 1, 10000000); break;
        case 's': options.seconds_max = number("seconds-max", optarg, 1, 3600); break;
        case 'l': options.line = 1; break;
        case 'a': options.same = 1; break;
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
    if (options.rate > 0 && (options.connect_each || options.pipeline > 1))
        fail("--rate knows neither --pipeline nor --connect-each");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    server = find_server(options.host, options.port);
    set_bounds(options.seconds_max);
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
    if (options.rate > 0)
        keep_schedule(batches);
    else
        exchange(batches);
    double seconds = (double)(now() - began) / 1e9;
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f}\n",
           (unsigned long long)(batches * options.pipeline), seconds, percentile(0.50),
           percentile(0.99), percentile(1));
    if (options.gate)
        wait_at_gate();
    return 0;
}
