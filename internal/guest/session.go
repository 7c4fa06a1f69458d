package guest

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// killRounds bounds how often a session is searched for processes that were
// forked while it was being killed.
const killRounds = 16

// killSession kills every process of the session that the child began. The child
// may have been reaped: a session's number stays taken as long as one process is
// in it. When the number is another child's by now, that session was empty.
func (c *children) killSession(ch *child) {
	pid := ch.pid
	c.mu.Lock()
	now := c.live[pid]
	if now == ch {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	c.mu.Unlock()
	if now != nil && now != ch {
		return
	}
	for range killRounds {
		found := false
		eachProcess(func(s procStat) {
			if s.session == pid && s.pid != pid && s.state != 'Z' && s.state != 'X' {
				found = true
				_ = unix.Kill(s.pid, unix.SIGKILL)
			}
		})
		if !found {
			return
		}
	}
}

// killAll kills every process but this one: of the whole namespace when it is
// process 1, else those that descend from it.
func (c *children) killAll() {
	self := os.Getpid()
	if self == 1 {
		_ = unix.Kill(-1, unix.SIGKILL)
		return
	}
	c.mu.Lock()
	all := make([]*child, 0, len(c.live))
	for pid, ch := range c.live {
		all = append(all, ch)
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	c.mu.Unlock()
	if !c.init {
		for _, ch := range all {
			c.killSession(ch)
		}
		return
	}
	for range killRounds {
		tree := map[int]bool{self: true}
		for grown := true; grown; {
			grown = false
			eachProcess(func(s procStat) {
				if !tree[s.pid] && tree[s.ppid] && s.state != 'Z' {
					tree[s.pid], grown = true, true
				}
			})
		}
		if len(tree) == 1 {
			return
		}
		for pid := range tree {
			if pid != self {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

type procStat struct {
	pid, ppid, group, session int
	threads                   int // at least 1
	state                     byte
}

// eachProcess calls f for each process that /proc shows.
func eachProcess(f func(procStat)) {
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if s, ok := readProcess(name); ok {
			f(s)
		}
	}
}

// readProcess looks at the process with an entry of /proc; false when it is none,
// or gone.
func readProcess(name string) (procStat, bool) {
	pid, err := strconv.Atoi(name)
	if err != nil {
		return procStat{}, false
	}
	fd, err := unix.Open("/proc/"+name+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procStat{}, false
	}
	defer unix.Close(fd)
	var buf [512]byte
	n, _ := readFD(fd, buf[:])
	s, ok := parseStat(buf[:max(n, 0)])
	return s, ok && s.pid == pid
}

// parseStat reads the fields of /proc/PID/stat that matter here. The program's
// name, in parentheses, may hold anything, so the last one counts.
func parseStat(b []byte) (procStat, bool) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return procStat{}, false
	}
	f := bytes.Fields(b[shut+1:]) // state ppid pgrp session …
	if len(f) < 4 || len(f[0]) != 1 {
		return procStat{}, false
	}
	pid, e1 := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	ppid, e2 := strconv.Atoi(string(f[1]))
	group, e3 := strconv.Atoi(string(f[2]))
	sid, e4 := strconv.Atoi(string(f[3]))
	if e1 != nil || e2 != nil || e3 != nil || e4 != nil {
		return procStat{}, false
	}
	threads := 1
	if len(f) > 17 {
		if n, err := strconv.Atoi(string(f[17])); err == nil && n > 1 {
			threads = n
		}
	}
	return procStat{pid: pid, ppid: ppid, group: group, session: sid, threads: threads, state: f[0][0]}, true
}
