//go:build !purego

#include "textflag.h"

// Base64 with AVX2: 32 characters at a time, after W. Muła and D. Lemire, "Faster
// Base64 Encoding and Decoding using AVX2 Instructions" (ACM TWEB 12:3, 2018). A
// step that meets anything outside of the alphabet is not made.

// The classes of a character by its low and its high half: the two have a bit in
// common if it is not in the alphabet.
DATA b64low<>+0(SB)/8, $0x1111111111111115
DATA b64low<>+8(SB)/8, $0x1A1B1B1B1A131111
GLOBL b64low<>(SB), RODATA|NOPTR, $16
DATA b64high<>+0(SB)/8, $0x0804080402011010
DATA b64high<>+8(SB)/8, $0x1010101010101010
GLOBL b64high<>(SB), RODATA|NOPTR, $16

// What to add to a character, by its high half; "/" has a place of its own.
DATA b64roll<>+0(SB)/8, $0xB9B9BFBF04131000
DATA b64roll<>+8(SB)/8, $0x0000000000000000
GLOBL b64roll<>(SB), RODATA|NOPTR, $16

DATA b64slash<>+0(SB)/4, $0x2F2F2F2F
GLOBL b64slash<>(SB), RODATA|NOPTR, $4
DATA b64join1<>+0(SB)/4, $0x01400140
GLOBL b64join1<>(SB), RODATA|NOPTR, $4
DATA b64join2<>+0(SB)/4, $0x00011000
GLOBL b64join2<>(SB), RODATA|NOPTR, $4

// The three bytes of each four, most significant first.
DATA b64pack<>+0(SB)/8, $0x090A040506000102
DATA b64pack<>+8(SB)/8, $0xFFFFFFFF0C0D0E08
GLOBL b64pack<>(SB), RODATA|NOPTR, $16
DATA b64close<>+0(SB)/8, $0x0000000100000000
DATA b64close<>+8(SB)/8, $0x0000000400000002
DATA b64close<>+16(SB)/8, $0x0000000600000005
DATA b64close<>+24(SB)/8, $0x0000000700000003
GLOBL b64close<>(SB), RODATA|NOPTR, $32

// func decodeWide(out, text *byte, steps int) (made int)
TEXT ·decodeWide(SB), NOSPLIT, $0-32
	MOVQ out+0(FP), DI
	MOVQ text+8(FP), SI
	MOVQ steps+16(FP), CX
	XORQ AX, AX
	VBROADCASTI128 b64low<>(SB), Y8
	VBROADCASTI128 b64high<>(SB), Y9
	VBROADCASTI128 b64roll<>(SB), Y10
	VPBROADCASTD b64slash<>(SB), Y11
	VPBROADCASTD b64join1<>(SB), Y12
	VPBROADCASTD b64join2<>(SB), Y13
	VBROADCASTI128 b64pack<>(SB), Y14
	VMOVDQU b64close<>(SB), Y15

decode:
	CMPQ AX, CX
	JGE  decoded
	VMOVDQU (SI), Y0
	VPSRLD  $4, Y0, Y1
	VPAND   Y11, Y1, Y1          // high halves; bit 5 does not count
	VPAND   Y11, Y0, Y2          // low halves
	VPSHUFB Y1, Y9, Y3
	VPSHUFB Y2, Y8, Y4
	VPTEST  Y3, Y4
	JNZ     decoded
	VPCMPEQB Y11, Y0, Y5
	VPADDB  Y1, Y5, Y5
	VPSHUFB Y5, Y10, Y5
	VPADDB  Y5, Y0, Y0           // six bits in each byte
	VPMADDUBSW Y12, Y0, Y0       // twelve in each two
	VPMADDWD Y13, Y0, Y0         // 24 in each four
	VPSHUFB Y14, Y0, Y0
	VPERMD  Y0, Y15, Y0
	VMOVDQU Y0, (DI)             // 24 bytes, and 8 that do not count
	ADDQ    $32, SI
	ADDQ    $24, DI
	INCQ    AX
	JMP     decode

decoded:
	VZEROUPPER
	MOVQ AX, made+24(FP)
	RET

// Each three bytes a b c as b a c b.
DATA b64spread<>+0(SB)/8, $0x0405030401020001
DATA b64spread<>+8(SB)/8, $0x0A0B090A07080607
GLOBL b64spread<>(SB), RODATA|NOPTR, $16
DATA b64and1<>+0(SB)/4, $0x0FC0FC00
GLOBL b64and1<>(SB), RODATA|NOPTR, $4
DATA b64mul1<>+0(SB)/4, $0x04000040
GLOBL b64mul1<>(SB), RODATA|NOPTR, $4
DATA b64and2<>+0(SB)/4, $0x003F03F0
GLOBL b64and2<>(SB), RODATA|NOPTR, $4
DATA b64mul2<>+0(SB)/4, $0x01000010
GLOBL b64mul2<>(SB), RODATA|NOPTR, $4
DATA b64last<>+0(SB)/4, $0x33333333   // 51
GLOBL b64last<>(SB), RODATA|NOPTR, $4
DATA b64upper<>+0(SB)/4, $0x19191919  // 25
GLOBL b64upper<>(SB), RODATA|NOPTR, $4

// What to add to six bits: A to Z, a to z, each digit, "+", "/".
DATA b64shift<>+0(SB)/8, $0xFCFCFCFCFCFC4741
DATA b64shift<>+8(SB)/8, $0x0000F0EDFCFCFCFC
GLOBL b64shift<>(SB), RODATA|NOPTR, $16

// func encodeWide(out, data *byte, steps int)
TEXT ·encodeWide(SB), NOSPLIT, $0-24
	MOVQ out+0(FP), DI
	MOVQ data+8(FP), SI
	MOVQ steps+16(FP), CX
	VBROADCASTI128 b64spread<>(SB), Y8
	VPBROADCASTD b64and1<>(SB), Y9
	VPBROADCASTD b64mul1<>(SB), Y10
	VPBROADCASTD b64and2<>(SB), Y11
	VPBROADCASTD b64mul2<>(SB), Y12
	VPBROADCASTD b64last<>(SB), Y13
	VPBROADCASTD b64upper<>(SB), Y14
	VBROADCASTI128 b64shift<>(SB), Y15

encode:
	SUBQ $1, CX
	JLT  encoded
	VMOVDQU (SI), X0
	VINSERTI128 $1, 12(SI), Y0, Y0
	VPSHUFB Y8, Y0, Y0
	VPAND   Y9, Y0, Y1
	VPMULHUW Y10, Y1, Y1
	VPAND   Y11, Y0, Y2
	VPMULLW Y12, Y2, Y2
	VPOR    Y1, Y2, Y0           // six bits in each byte
	VPSUBUSB Y13, Y0, Y1
	VPCMPGTB Y14, Y0, Y2
	VPSUBB  Y2, Y1, Y1
	VPSHUFB Y1, Y15, Y1
	VPADDB  Y1, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ    $24, SI
	ADDQ    $32, DI
	JMP     encode

encoded:
	VZEROUPPER
	RET

// func hasAVX2() bool
TEXT ·hasAVX2(SB), NOSPLIT, $0-1
	MOVB $0, ret+0(FP)
	XORL AX, AX
	XORL CX, CX
	CPUID
	CMPL AX, $7
	JLT  none
	MOVL $1, AX
	XORL CX, CX
	CPUID
	ANDL $0x18000000, CX // OSXSAVE, AVX
	CMPL CX, $0x18000000
	JNE  none
	XORL CX, CX
	XGETBV
	ANDL $6, AX // XMM and YMM registers are kept
	CMPL AX, $6
	JNE  none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $5, BX
	ANDL $1, BX
	MOVB BX, ret+0(FP)

none:
	RET
