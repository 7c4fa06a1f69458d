#include "textflag.h"

#define SYS_clone3 435

// func cloneShared(args *cloneArgs, size uintptr) (pid, errno uintptr)
//
// The address to return to is in the link register, of which parent and child have a copy each.
TEXT ·cloneShared(SB), NOSPLIT|NOFRAME, $0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD $SYS_clone3, R8
	SVC
	MOVD ZR, R2
	CMN  $4095, R0
	BCC  done
	NEG  R0, R2
	MOVD $-1, R0

done:
	MOVD R2, errno+24(FP)
	MOVD R0, pid+16(FP)
	RET
