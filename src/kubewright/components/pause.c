/* Holds a pod's namespaces open: sleeps until it is told to end, and buries the pod's orphans meanwhile. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGCHLD);
    sigprocmask(SIG_BLOCK, &awaited, 0);
    for (;;) {
        int received = 0;
        if (sigwait(&awaited, &received) == 0 && received != SIGCHLD) return 0;
        while (waitpid(-1, 0, WNOHANG) > 0) {}
    }
}
