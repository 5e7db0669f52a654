// Lets threads begin late and wake late, so that tests fail that are not patient.
//
// A test that looks for an effect of another thread too early passes nearly always, and fails on a
// busy machine. This library, loaded by LD_PRELOAD, sleeps for a random time
//
// - at the start of every second thread, and in its creator: up to 15 ms;
// - before one wake of a waiting thread in twelve, and after one wait in twelve: up to 4 ms. Rust's
//   mutexes, condition variables and channels wait by the system call futex through syscall().
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long (*real_syscall)(long, ...);
static int (*real_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

__attribute__((constructor)) static void find(void) {
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    real_create = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(
        RTLD_NEXT, "pthread_create");
}

// A random number (xorshift) from a state of the thread's own.
static uint64_t next_random(void) {
    static __thread uint64_t state;
    if (!state) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        // Never 0: then all that follow would be 0.
        state = ((uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)&state ^ (uint64_t)getpid() << 32) |
                1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Sleeps one time in `odds`, for less than `most` microseconds.
static void nap(unsigned odds, unsigned most) {
    if (next_random() % odds) {
        return;
    }
    int before = errno;
    struct timespec time = {0, (long)(next_random() % most) * 1000};
    nanosleep(&time, NULL);
    errno = before;
}

struct thread {
    void *(*run)(void *);
    void *argument;
};

static void *begin(void *argument) {
    struct thread thread = *(struct thread *)argument;
    free(argument);
    nap(2, 15000);
    return thread.run(thread.argument);
}

int pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
    struct thread *thread = malloc(sizeof *thread);
    if (!thread) {
        return EAGAIN;
    }
    *thread = (struct thread){run, argument};
    int result = real_create(id, attributes, begin, thread);
    if (result) {
        free(thread);
    } else {
        nap(2, 15000);
    }
    return result;
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long arguments[6];
    for (int place = 0; place < 6; place++) {
        arguments[place] = va_arg(list, long);
    }
    va_end(list);
    int is_futex = number == SYS_futex;
    if (is_futex && (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
        nap(12, 4000);
    }
    long result = real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
                               arguments[4], arguments[5]);
    if (is_futex) {
        nap(12, 4000);
    }
    return result;
}
