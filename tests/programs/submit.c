/* Submits each of its arguments as a task, prints the result of each, and says that nothing more comes.
 * It speaks to the key-value store in plain bytes, as a program in any language may that has no secret to prove. */

#define _POSIX_C_SOURCE 200809L

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static int store = -1;

static void fail(const char *what)
{
    fprintf(stderr, "submit: %s\n", what);
    exit(1);
}

static void join(void)
{
    const char *host = getenv("KVSSTCP_HOST"), *port = getenv("KVSSTCP_PORT");
    struct addrinfo hints, *found, *at;
    if (host == NULL || port == NULL)
        fail("KVSSTCP_HOST and KVSSTCP_PORT are not set");
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        fail("the host is not known");
    for (at = found; at != NULL && store < 0; at = at->ai_next) {
        store = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (store >= 0 && connect(store, at->ai_addr, at->ai_addrlen) != 0) {
            close(store);
            store = -1;
        }
    }
    freeaddrinfo(found);
    if (store < 0)
        fail("cannot connect");
}

static void send_bytes(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(store, bytes, count, MSG_NOSIGNAL);
        if (sent <= 0)
            fail("cannot send");
        bytes += sent;
        count -= (size_t)sent;
    }
}

static void send_sized(const char *text)
{
    char length[32];
    snprintf(length, sizeof length, "%10lu", (unsigned long)strlen(text));
    send_bytes(length, 10);
    send_bytes(text, strlen(text));
}

static void receive_bytes(char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t received = recv(store, bytes, count, 0);
        if (received <= 0)
            fail("the store has gone");
        bytes += received;
        count -= (size_t)received;
    }
}

static void put(const char *key, const char *value)
{
    send_bytes("put_", 4);
    send_sized(key);
    send_bytes("ASTR", 4);
    send_sized(value);
}

/* The operation is get_ or view; the tag of the value goes to `tag`, the value is to be freed. */
static char *ask(const char *operation, const char *key, char tag[5])
{
    char digits[11] = "", *value;
    unsigned long length;
    send_bytes(operation, 4);
    send_sized(key);
    receive_bytes(tag, 4);
    tag[4] = '\0';
    receive_bytes(digits, 10);
    length = strtoul(digits, NULL, 10);
    value = malloc(length + 1);
    if (value == NULL)
        fail("no memory");
    receive_bytes(value, length);
    value[length] = '\0';
    return value;
}

int main(int count, char **arguments)
{
    int number;
    char tag[5];
    join();
    put("task source name", "submit.c");
    put("task source done task", "the end");
    put("task source result key", "c");
    put("task source task key", "c tasks");
    for (number = 1; number < count; number++)
        put("c tasks", arguments[number]);
    for (number = 1; number < count; number++) {
        char key[64], *task = ask("get_", "c done tasks", tag), *seen, *taken;
        snprintf(key, sizeof key, "c %.20s", task);
        seen = ask("view", key, tag);
        taken = ask("get_", key, tag);
        if (strcmp(seen, taken) != 0)
            fail("a value has changed");
        printf("%s %s %s\n", task, tag, taken);
        free(task);
        free(seen);
        free(taken);
    }
    put("c tasks", "the end");
    send_bytes("clos", 4);
    close(store);
    return 0;
}
