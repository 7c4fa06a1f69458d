package boot

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Places in struct seccomp_data. The architectures that there is a filter for have the low half of an argument
// first; the arguments that are looked at are of types of 32 bits, so the kernel too looks at that half only.
const (
	callAt = 0
	archAt = 4
	argsAt = 16
)

func argument(n int) uint32 { return uint32(argsAt + 8*n) }

// program is a filter, or a part of one. A part either ends with an answer in all cases or goes on with what
// comes after it.
type program []unix.SockFilter

func join(parts ...program) (all program) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func load(offset uint32) program {
	return program{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}}
}

func and(k uint32) program {
	return program{{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}}
}

func answer(k uint32) program { return program{{Code: unix.BPF_RET | unix.BPF_K, K: k}} }

func allow() program { return answer(unix.SECCOMP_RET_ALLOW) }

func refuse(e syscall.Errno) program { return answer(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// The tests of what was loaded last. then must be shorter than 256.
func equal(k uint32, then program) program    { return test(unix.BPF_JEQ, k, 0, len(then), then) }
func notEqual(k uint32, then program) program { return test(unix.BPF_JEQ, k, len(then), 0, then) }
func less(k uint32, then program) program     { return test(unix.BPF_JGE, k, len(then), 0, then) }

func test(jump uint16, k uint32, skipTrue, skipFalse int, then program) program {
	return append(program{{Code: unix.BPF_JMP | jump | unix.BPF_K, Jt: uint8(skipTrue), Jf: uint8(skipFalse), K: k}}, then...)
}

// one allows a value of what was loaded last if it is among these, and else gives the answer e.
func one(e syscall.Errno, values ...uint32) (p program) {
	for _, v := range values {
		p = append(p, equal(v, allow())...)
	}
	return append(p, refuse(e)...)
}

// stretch is what is done with the values from one on, up to the next one's.
type stretch struct {
	from uint32
	do   program // ends with an answer
}

// search finds the stretch of what was loaded last by halves. The first is from 0.
func search(all []stretch) program {
	if len(all) == 1 {
		return all[0].do
	}
	half := len(all) / 2
	low, high := search(all[:half]), search(all[half:])
	p := make(program, 0, 2+len(low)+len(high))
	is := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: all[half].from}
	if n := len(low); n < 256 {
		is.Jt = uint8(n)
		p = append(p, is)
	} else { // too far for a test
		is.Jf = 1
		p = append(p, is, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)})
	}
	return append(append(p, low...), high...)
}
