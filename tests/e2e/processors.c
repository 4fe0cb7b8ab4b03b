/* A machine that says it has 64 processors. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

enum { PROCESSORS = 64 };

long sysconf(int name) {
    long (*original)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_NPROCESSORS_CONF || name == _SC_NPROCESSORS_ONLN ? PROCESSORS : original(name);
}

int sched_getaffinity(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    memset(set, 0, size);
    memset(set, 0xff, PROCESSORS / 8);
    return 0;
}
