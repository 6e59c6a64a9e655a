// Connections that each come to an end in another way, from many threads at once. Every answer is
// compared and no wait is without bound. Prints one line of JSON: how many ended in which way, and
// the bytes that the server must have received and sent.
//
// The clients' addresses are many, 127.0.0.2 and up, because one has too few ports for a million
// connections in a few minutes.

#define _GNU_SOURCE
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>

#include "client.h"

enum { ADDRESSES = 100, MAX_CLIENTS = 256, PATIENCE_SECONDS = 20 };

static const char USAGE[] =
    "usage: endings HOST RAW_PORT LINE_PORT [--connections 100000] [--clients 16]\n"
    "               [--seconds-max 600]\n"
    "  HOST            a numeric IPv4 address of loopback\n"
    "  LINE_PORT       where max_message_bytes is at most 1000\n";

// One connection, and what all of its client came to.
struct client {
    int fd;
    uint64_t said_bytes, heard_bytes;
};

static void say(struct client *client, const char *text)
{
    size_t length = strlen(text);
    if (send(client->fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        fail("cannot send: %s", strerror(errno));
    client->said_bytes += length;
}

static void take(struct client *client, const char *text, int flags)
{
    char answer[64];
    ssize_t length = (ssize_t)strlen(text);
    ssize_t received = recv(client->fd, answer, (size_t)length, MSG_WAITALL | flags);
    if (received < 0)
        fail("no answer: %s", strerror(errno));
    if (received != length || memcmp(answer, text, (size_t)length) != 0)
        fail("%zd bytes of another answer than `%s`", received, text);
    client->heard_bytes += (uint64_t)length;
}

static void hear(struct client *client, const char *text)
{
    take(client, text, 0);
}

static void hear_the_end(struct client *client)
{
    char answer;
    ssize_t received = recv(client->fd, &answer, 1, 0);
    if (received != 0)
        fail("no end: %s", received < 0 ? strerror(errno) : "there is more");
}

static void say_no_more(struct client *client)
{
    if (shutdown(client->fd, SHUT_WR) < 0)
        fail("cannot half-close: %s", strerror(errno));
}

// The close that follows is a reset.
static void turn_away(struct client *client)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

static void close_after_an_echo(struct client *client)
{
    say(client, "hello");
    hear(client, "hello");
}

static void half_close(struct client *client)
{
    say(client, "hello");
    say_no_more(client);
    hear(client, "hello");
    hear_the_end(client);
}

static void reset_after_an_echo(struct client *client)
{
    close_after_an_echo(client);
    turn_away(client);
}

// What it has not read makes its kernel answer with a reset.
static void close_without_reading(struct client *client)
{
    close_after_an_echo(client);
    say(client, "again");
    take(client, "again", MSG_PEEK);
}

static void say_exit(struct client *client)
{
    say(client, "你好");
    hear(client, "你好");
    say(client, "exit");
    hear_the_end(client);
}

static void close_unused(struct client *client)
{
    (void)client;
}

static void reset_unused(struct client *client)
{
    turn_away(client);
}

static void say_bad_bytes(struct client *client)
{
    say(client, "hello\xff");
    hear(client, "hello");
    hear_the_end(client);
}

static void close_after_lines(struct client *client)
{
    say(client, "one\r\ntwo\n");
    hear(client, "one\ntwo\n");
}

static void half_close_in_a_line(struct client *client)
{
    say(client, "one\ntwo");
    say_no_more(client);
    hear(client, "one\ntwo\n");
    hear_the_end(client);
}

static void say_exit_and_more(struct client *client)
{
    say(client, "one\nexit\ntwo\n");
    hear(client, "one\n");
    hear_the_end(client);
}

static void say_a_bad_line(struct client *client)
{
    say(client, "one\nt\xffwo\nthree\n");
    hear(client, "one\n");
    hear_the_end(client);
}

static void say_too_long_a_line(struct client *client)
{
    char text[1200] = "one\n";
    memset(text + 4, 'x', sizeof text - 5);
    text[sizeof text - 1] = '\0';
    say(client, text);
    hear(client, "one\n");
    hear_the_end(client);
}

static const struct ending {
    const char *name;
    enum { RAW, LINE } framing;
    void (*reach)(struct client *);
} ENDINGS[] = {
    {"close after an echo", RAW, close_after_an_echo},
    {"half-close", RAW, half_close},
    {"reset after an echo", RAW, reset_after_an_echo},
    {"close without reading", RAW, close_without_reading},
    {"exit", RAW, say_exit},
    {"close unused", RAW, close_unused},
    {"reset unused", RAW, reset_unused},
    {"bad bytes", RAW, say_bad_bytes},
    {"close after lines", LINE, close_after_lines},
    {"half-close in a line", LINE, half_close_in_a_line},
    {"exit and more", LINE, say_exit_and_more},
    {"a bad line", LINE, say_a_bad_line},
    {"too long a line", LINE, say_too_long_a_line},
};
enum { ENDING_KINDS = sizeof ENDINGS / sizeof ENDINGS[0] };

static uint64_t connections = 100000, client_count = 16, seconds_max = 600;
static struct server servers[2];
static struct client clients[MAX_CLIENTS];

// From the address that is next in turn; the port is chosen when the other end is known, so that
// each address has all ports for each listener.
static int connect_from(uint64_t number, const struct server *server)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("cannot make a socket: %s", strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(number % ADDRESSES));
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        fail("cannot bind: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&server->address, server->address_len) < 0)
        fail("cannot connect: %s", strerror(errno));
    return fd;
}

// Every so many connections are one client's, one after the other.
static void *run_client(void *argument)
{
    struct client *client = argument;
    for (uint64_t n = (uint64_t)(client - clients); n < connections; n += client_count) {
        const struct ending *ending = &ENDINGS[n % ENDING_KINDS];
        client->fd = connect_from(n, &servers[ending->framing]);
        ending->reach(client);
        close(client->fd);
    }
    return NULL;
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'}, {"clients", required_argument, NULL, 'l'},
        {"seconds-max", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'c': connections = number("connections", optarg, 1, 100000000); break;
        case 'l': client_count = number("clients", optarg, 1, MAX_CLIENTS); break;
        case 's': seconds_max = number("seconds-max", optarg, 1, 3600); break;
        case 'h': fputs(USAGE, stdout); exit(0);
        default: fputs(USAGE, stderr); exit(2);
        }
    }
    if (argc - optind != 3) {
        fputs(USAGE, stderr);
        exit(2);
    }
    servers[RAW] = find_server(argv[optind], argv[optind + 1]);
    servers[LINE] = find_server(argv[optind], argv[optind + 2]);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    set_bounds(seconds_max);
    uint64_t began = now();
    pthread_t threads[MAX_CLIENTS];
    for (uint64_t i = 0; i < client_count; i++)
        if (pthread_create(&threads[i], NULL, run_client, &clients[i]) != 0)
            fail("cannot start a thread");
    uint64_t said = 0, heard = 0;
    for (uint64_t i = 0; i < client_count; i++) {
        pthread_join(threads[i], NULL);
        said += clients[i].said_bytes;
        heard += clients[i].heard_bytes;
    }

    printf("{\"seconds\": %.3f, \"received_bytes\": %llu, \"sent_bytes\": %llu, \"endings\": {",
           (double)(now() - began) / 1e9, (unsigned long long)said, (unsigned long long)heard);
    for (uint64_t i = 0; i < ENDING_KINDS; i++) {
        uint64_t ended = connections / ENDING_KINDS + (i < connections % ENDING_KINDS);
        printf("%s\"%s\": %llu", i == 0 ? "" : ", ", ENDINGS[i].name, (unsigned long long)ended);
    }
    puts("}}");
    return 0;
}
