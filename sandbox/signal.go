package sandbox

import (
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// signals are the names that Signal takes, with or without "SIG".
var signals = sync.OnceValue(func() map[string]syscall.Signal {
	return map[string]syscall.Signal{
		"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5,
		"SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9, "SIGUSR1": 10,
		"SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15,
		"SIGSTKFLT": 16, "SIGCHLD": 17, "SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20,
		"SIGTTIN": 21, "SIGTTOU": 22, "SIGURG": 23, "SIGXCPU": 24, "SIGXFSZ": 25,
		"SIGVTALRM": 26, "SIGPROF": 27, "SIGWINCH": 28, "SIGIO": 29, "SIGPWR": 30,
		"SIGSYS": 31,
	}
})

// ParseSignal reads "SIGTERM", "TERM", "term" or "15". Numbers are Linux's,
// 1 to 64.
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n >= 1 && n <= 64 {
			return syscall.Signal(n), nil
		}
	} else {
		name := strings.ToUpper(s)
		if !strings.HasPrefix(name, "SIG") {
			name = "SIG" + name
		}
		if sig, ok := signals()[name]; ok {
			return sig, nil
		}
	}
	return 0, Errf(CodeInvalidArgument, "signal", "there is no signal "+strconv.Quote(s), "use a name like SIGTERM or a number from 1 to 64")
}

// SignalName is the name of a signal, "SIGTERM"; "SIG40" for one without.
func SignalName(sig syscall.Signal) string {
	for name, s := range signals() {
		if s == sig {
			return name
		}
	}
	return "SIG" + strconv.Itoa(int(sig))
}

func signalNumber(name string) (int, bool) {
	if s, ok := signals()[name]; ok {
		return int(s), true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(name, "SIG"))
	return n, err == nil
}
