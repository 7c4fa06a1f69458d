#include "textflag.h"

#define SYS_clone3 435

// func cloneShared(args *cloneArgs, size uintptr) (pid, errno uintptr)
//
// The child runs on this stack before its parent goes on, so the address to return to waits in a register
// that both have a copy of.
TEXT ·cloneShared(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ size+8(FP), SI
	MOVQ args+0(FP), DI
	MOVL $SYS_clone3, AX
	POPQ R13
	SYSCALL
	PUSHQ R13
	XORL CX, CX
	CMPQ AX, $-4095
	JCS  done
	MOVQ AX, CX
	NEGQ CX
	MOVQ $-1, AX

done:
	MOVQ CX, errno+24(FP)
	MOVQ AX, pid+16(FP)
	RET
