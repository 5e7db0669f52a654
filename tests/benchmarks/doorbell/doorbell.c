// Two processes wake each other: by messages on a unix socket, as Hesper's processes do, or by
// futex words in shared memory. Prints the time and the processor time of a round trip.
//
//   cc -O2 -o /tmp/doorbell tests/benchmarks/doorbell/doorbell.c
//   /tmp/doorbell socket; /tmp/doorbell futex
//
// With a number of microseconds as the second argument, the first process sleeps for so long before
// each round trip. Linux.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 30000, MESSAGE = 17, BUFFER = 65544 };

// A word for each direction.
struct words {
    _Atomic unsigned there, back;
};

static double microseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static double processor_time(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static void send_message(int socket) {
    char bytes[MESSAGE] = {0};
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    sendmsg(socket, &message, MSG_NOSIGNAL);
}

static void receive_message(int socket, int flags) {
    static char buffer[BUFFER];
    char descriptors[512];
    struct iovec part = {buffer, sizeof buffer};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = descriptors,
                             .msg_controllen = sizeof descriptors};
    recvmsg(socket, &message, flags);
}

static void ring(_Atomic unsigned *word, unsigned value) {
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void hear(_Atomic unsigned *word, unsigned value) {
    unsigned old;
    while ((old = atomic_load(word)) != value) {
        syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
    }
}

int main(int count, char **arguments) {
    int by_socket = count > 1 && !strcmp(arguments[1], "socket");
    if (!by_socket && (count < 2 || strcmp(arguments[1], "futex"))) {
        fprintf(stderr, "usage: doorbell socket|futex [MICROSECONDS]\n");
        return 2;
    }
    useconds_t pause = count > 2 ? (useconds_t)atoi(arguments[2]) : 0;
    int control[2], budget[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, control) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, budget)) {
        perror("socketpair");
        return 1;
    }
    struct words *words =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    pid_t worker = fork();
    if (worker < 0) {
        perror("fork");
        return 1;
    }
    if (!worker) {
        for (unsigned round = 1; round <= ROUNDS; round++) {
            if (by_socket) {
                receive_message(control[1], 0);
                send_message(control[1]);
            } else {
                hear(&words->there, round);
                ring(&words->back, round);
            }
        }
        _exit(0);
    }
    double begin = microseconds();
    for (unsigned round = 1; round <= ROUNDS; round++) {
        if (pause) {
            usleep(pause);
        }
        if (by_socket) {
            send_message(control[0]);
            // The main process waits for three descriptors, and reads until nothing is left.
            struct pollfd wanted[3] = {
                {budget[0], POLLIN, 0}, {control[0], POLLIN, 0}, {budget[0], POLLIN, 0}};
            poll(wanted, 3, -1);
            receive_message(control[0], MSG_DONTWAIT);
            receive_message(control[0], MSG_DONTWAIT);
        } else {
            ring(&words->there, round);
            hear(&words->back, round);
        }
    }
    double took = microseconds() - begin;
    waitpid(worker, NULL, 0);
    double spent = processor_time(RUSAGE_SELF) + processor_time(RUSAGE_CHILDREN);
    printf("%s: %.1f us a round trip, %.1f us of processor time\n", arguments[1], took / ROUNDS,
           spent / ROUNDS);
    return 0;
}
