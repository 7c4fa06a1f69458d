package driver

import "context"

// Checkpointer is a Driver that can write what runs in a sandbox to the sandbox's own directory, and go on from
// it later, also after a restart of the machine. The driver of gVisor's sandboxes is one.
//
// Kept are the processes, their memory (/tmp and /dev/shm included), what the guest knows of them (ids, output and
// its offsets, exit codes) and what listens on TCP. The sandbox's files stay where they are; nobody may change them
// in between. Not kept are connections: those of clients of the guest, which end as when a host restarts, and those
// of programs, which find them reset; and sockets for datagrams. The host listens again for the way out when it
// reaches the guest again.
//
// A sandbox has one checkpoint at the most, and goes on from it once.
type Checkpointer interface {
	// Checkpoint writes what runs and then ends it. When it fails, the sandbox goes on as before, but for the
	// connections; when this process is killed meanwhile, the next Start sees to it that it goes on or has been
	// written. Errors: SANDBOX_NOT_RUNNING; NOT_SUPPORTED for a sandbox that can't be; CHECKPOINT_FAILED;
	// NO_SPACE before anything is disturbed.
	Checkpoint(ctx context.Context, id string) error

	// Restore is Start for a sandbox that has a checkpoint; Start does it too. Errors: CHECKPOINT_NOT_FOUND;
	// RESTORE_FAILED, which leaves the checkpoint as it was unless the message says that it is used up.
	Restore(ctx context.Context, id string) error

	// DropCheckpoint removes a checkpoint, so that the next Start is one from the files alone. Errors:
	// CHECKPOINT_NOT_FOUND.
	DropCheckpoint(ctx context.Context, id string) error
}
