// Hostile company for the clients whose latency is measured: the silent, who say nothing after
// their first byte; drips of a byte a second; the deaf, who send and after the first answer never
// read; and floods, who send as fast as they can and read what comes back. One thread, bounded in
// time. Prints `ready` once all are connected and were answered, and behaves like that until a line
// of input; then it prints what it did as one line of JSON, and closes after another.
//
// The text is ASCII without an end of line: in raw framing each receive of it is a message.

#define _GNU_SOURCE
#include <getopt.h>
#include <sched.h>

#include "client.h"

enum { EVENTS = 256, CHUNK_BYTES = 64 * 1024, RECV_BYTES = 256 * 1024 };

static const char USAGE[] =
    "usage: company HOST PORT [--silent 10000] [--drips 300] [--deaf 100] [--floods 4]\n"
    "               [--seconds-max 60]\n"
    "  HOST            a numeric address\n";

enum kind { SILENT, DRIP, DEAF, FLOOD, KINDS };

struct client {
    int fd;
    enum kind kind;
};

static uint64_t counts[KINDS] = {10000, 300, 100, 4};
static uint64_t seconds_max = 60;
static const char *host, *port;
static char chunk[CHUNK_BYTES];
static uint64_t sent_bytes[KINDS], received_bytes[KINDS];
static int epoll_fd;

static void watch(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll_fd, operation, client->fd, &event) < 0)
        fail("cannot watch a connection: %s", strerror(errno));
}

// Its first byte is answered before the next one connects, so that no server has to queue them.
static void enter(struct client *client, const struct server *server)
{
    client->fd = connect_to(server);
    char answer;
    if (send(client->fd, "c", 1, MSG_NOSIGNAL) != 1 || recv(client->fd, &answer, 1, 0) != 1)
        fail("a newcomer was not answered");
    watch(client, EPOLL_CTL_ADD, client->kind == DEAF ? EPOLLRDHUP : EPOLLIN | EPOLLRDHUP);
}

static struct client *enter_all(const struct server *server)
{
    uint64_t total = 0;
    for (int kind = 0; kind < KINDS; kind++)
        total += counts[kind];
    struct client *clients = calloc(total + 1, sizeof *clients), *client = clients;
    if (clients == NULL)
        fail("no memory for %llu clients", (unsigned long long)total);
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint64_t i = 0; i < counts[kind]; i++, client++) {
            client->kind = (enum kind)kind;
            enter(client, server);
        }
    }
    return clients;
}

static void send_some(struct client *client, size_t length)
{
    ssize_t sent = send(client->fd, chunk, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        fail("cannot send: %s", strerror(errno));
    if (sent > 0)
        sent_bytes[client->kind] += (uint64_t)sent;
}

static void receive_some(struct client *client)
{
    static char buffer[RECV_BYTES];
    ssize_t received = recv(client->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (received == 0 || (received < 0 && errno != EAGAIN && errno != EINTR))
        fail("the server closed a connection");
    if (received > 0)
        received_bytes[client->kind] += (uint64_t)received;
}

static void take_event(struct client *client, uint32_t events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        fail("the server closed a connection");
    if (events & EPOLLIN)
        receive_some(client);
    if (events & EPOLLOUT)
        send_some(client, sizeof chunk);
}

// Drip `n` of all is that of client `n` modulo their number: evenly spread, a byte a second each.
static uint64_t next_drip(struct client *drips, uint64_t began)
{
    static uint64_t n;
    if (counts[DRIP] == 0)
        return UINT64_MAX;
    uint64_t due;
    while ((due = began + n * 1000000000u / counts[DRIP]) <= now())
        send_some(&drips[n++ % counts[DRIP]], 1);
    return due;
}

// Until there is input.
static double behave(struct client *clients)
{
    static struct epoll_event events[EVENTS];
    struct client *drips = clients + counts[SILENT], *deaf = drips + counts[DRIP];
    for (uint64_t i = 0; i < counts[DEAF]; i++)
        watch(&deaf[i], EPOLL_CTL_MOD, EPOLLOUT | EPOLLRDHUP);
    for (uint64_t i = 0; i < counts[FLOOD]; i++)
        watch(&deaf[counts[DEAF] + i], EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0)
        fail("cannot watch the input: %s", strerror(errno));

    for (uint64_t began = now();;) {
        int ready = await(epoll_fd, events, EVENTS, next_drip(drips, began));
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == NULL)
                return (double)(now() - began) / 1e9;
            take_event(events[i].data.ptr, events[i].events);
        }
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"silent", required_argument, NULL, SILENT},   {"drips", required_argument, NULL, DRIP},
        {"deaf", required_argument, NULL, DEAF},       {"floods", required_argument, NULL, FLOOD},
        {"seconds-max", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option, index; (option = getopt_long(argc, argv, "", names, &index)) != -1;) {
        switch (option) {
        case SILENT:
        case DRIP:
        case DEAF:
        case FLOOD: counts[option] = number(names[index].name, optarg, 0, 60000); break;
        case 's': seconds_max = number("seconds-max", optarg, 1, 3600); break;
        case 'h': fputs(USAGE, stdout); exit(0);
        default: fputs(USAGE, stderr); exit(2);
        }
    }
    if (argc - optind != 2) {
        fputs(USAGE, stderr);
        exit(2);
    }
    host = argv[optind];
    port = argv[optind + 1];
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    set_bounds(seconds_max);
    struct server server = find_server(host, port);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail("cannot use epoll: %s", strerror(errno));
    memset(chunk, 'x', sizeof chunk);
    struct client *clients = enter_all(&server);

    // It shares a CPU with the clients that are measured, and must not be what they wait for.
    struct sched_param none = {0};
    if (sched_setscheduler(0, SCHED_IDLE, &none) < 0)
        fail("cannot take the lowest priority: %s", strerror(errno));
    puts("ready");
    fflush(stdout);
    double seconds = behave(clients);
    printf("{\"seconds\": %.3f, \"flood_mb_a_second\": %.1f, \"drip_bytes\": %llu, "
           "\"deaf_bytes\": %llu}\n",
           seconds, (double)received_bytes[FLOOD] / 1e6 / seconds,
           (unsigned long long)received_bytes[DRIP], (unsigned long long)sent_bytes[DEAF]);
    wait_at_gate();
    wait_at_gate();
    return 0;
}
