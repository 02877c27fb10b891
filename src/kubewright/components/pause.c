/* Holds a pod's namespaces open: sleeps until it is told to end, and buries the pod's orphans meanwhile.
   With -v it says what it is and ends: `kubeadm upgrade plan` runs it so, in a Job, to see whether Pods run. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char about[] = "pause of kubewright\n";

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0) return write(1, about, sizeof about - 1) < 0;
    }
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
