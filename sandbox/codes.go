package sandbox

// A Code names a kind of failure. Codes are upper snake case, stable, and part
// of the interface. Where Cloudflare's sandbox SDK has a code of the same
// meaning, it is the same code.
type Code string

// Codes about files.
const (
	CodeFileNotFound     Code = "FILE_NOT_FOUND"
	CodeFileExists       Code = "FILE_EXISTS"
	CodeFileTooLarge     Code = "FILE_TOO_LARGE" // for an answer that has to fit in one message; stream it instead
	CodeIsDirectory      Code = "IS_DIRECTORY"
	CodeNotDirectory     Code = "NOT_DIRECTORY"
	CodeNotRegular       Code = "NOT_REGULAR" // a FIFO, a socket or a device where a file is needed
	CodeDirNotEmpty      Code = "DIRECTORY_NOT_EMPTY"
	CodeNoSpace          Code = "NO_SPACE"
	CodeReadOnly         Code = "READ_ONLY"
	CodeNameTooLong      Code = "NAME_TOO_LONG"
	CodeInvalidPath      Code = "INVALID_PATH"
	CodeSymlinkLoop      Code = "SYMLINK_LOOP"
	CodeTooManyFiles     Code = "TOO_MANY_FILES"
	CodeVersionMismatch  Code = "VERSION_MISMATCH" // the file is no longer the one that was named
	CodeCrossDevice      Code = "CROSS_DEVICE"     // the two paths are on different file systems
	CodeTextNotFound     Code = "TEXT_NOT_FOUND"   // the text to be replaced
	CodeTextNotUnique    Code = "TEXT_NOT_UNIQUE"
	CodePatchFailed      Code = "PATCH_FAILED"
	CodeUnsafeArchive    Code = "UNSAFE_ARCHIVE"    // it would write outside its directory, or make a device
	CodeArchiveTooLarge  Code = "ARCHIVE_TOO_LARGE" // more than the caller's bounds
	CodeInvalidArchive   Code = "INVALID_ARCHIVE"
	CodeTooManyWatches   Code = "TOO_MANY_WATCHES"
	CodeFilesystemError  Code = "FILESYSTEM_ERROR"
	CodePermissionDenied Code = "PERMISSION_DENIED"
)

// Codes about processes and tool runs.
const (
	CodeCommandNotFound         Code = "COMMAND_NOT_FOUND"
	CodeCommandPermissionDenied Code = "COMMAND_PERMISSION_DENIED"
	CodeCommandExecutionError   Code = "COMMAND_EXECUTION_ERROR"
	CodeInvalidCommand          Code = "INVALID_COMMAND"
	CodeProcessNotFound         Code = "PROCESS_NOT_FOUND"
	CodeProcessExists           Code = "PROCESS_ALREADY_EXISTS"
	CodeProcessExited           Code = "PROCESS_EXITED"
	CodeTooManyProcesses        Code = "TOO_MANY_PROCESSES"
	CodeStdinClosed             Code = "STDIN_CLOSED"
	CodeStdinTaken              Code = "STDIN_TAKEN"                 // another writer has taken over
	CodeExitedBeforeReady       Code = "PROCESS_EXITED_BEFORE_READY" // it ended before what was waited for
	CodeReadyTimeout            Code = "PROCESS_READY_TIMEOUT"       // what was waited for did not come in time
	CodeSessionExists           Code = "SESSION_ALREADY_EXISTS"      // a shell session of that name
	CodeSessionNotFound         Code = "SESSION_NOT_FOUND"
	CodeSessionDestroyed        Code = "SESSION_DESTROYED" // it was there, and somebody has deleted it
	CodeToolNotFound            Code = "TOOL_NOT_FOUND"
	CodeToolFailed              Code = "TOOL_FAILED"
	CodeCallConflict            Code = "CALL_ID_CONFLICT" // one call id, two different calls
	CodeRunLost                 Code = "RUN_LOST"         // asked for again, but the run is not known any more
	CodeRejected                Code = "PERMISSION_REJECTED"
	CodeAborted                 Code = "ABORTED"
	CodeTimeout                 Code = "TIMEOUT"
)

// Codes about ports.
const (
	CodeInvalidPort          Code = "INVALID_PORT"
	CodePortInUse            Code = "PORT_IN_USE"
	CodeServiceNotResponding Code = "SERVICE_NOT_RESPONDING"
)

// Codes of sandbox/git.
const (
	CodeGitRepositoryNotFound Code = "GIT_REPOSITORY_NOT_FOUND"
	CodeGitBranchNotFound     Code = "GIT_BRANCH_NOT_FOUND"
	CodeGitAuthFailed         Code = "GIT_AUTH_FAILED"
	CodeGitNetworkError       Code = "GIT_NETWORK_ERROR"
	CodeInvalidGitURL         Code = "INVALID_GIT_URL"
	CodeGitCloneFailed        Code = "GIT_CLONE_FAILED" // for another reason
)

// Codes of sandbox/code.
const (
	CodePythonNotAvailable     Code = "PYTHON_NOT_AVAILABLE"
	CodeJavaScriptNotAvailable Code = "JAVASCRIPT_NOT_AVAILABLE"
	CodeTypeScriptNotAvailable Code = "TYPESCRIPT_NOT_AVAILABLE"
	CodeInterpreterNotReady    Code = "INTERPRETER_NOT_READY"
	CodeInterpreterCrashed     Code = "INTERPRETER_CRASHED" // and the context's state with it
	CodeContextNotFound        Code = "CONTEXT_NOT_FOUND"
)

// Codes of the host, which makes sandboxes and serves them.
const (
	CodeUnauthorized        Code = "UNAUTHORIZED" // the token is missing, wrong, revoked or expired
	CodeForeignOrigin       Code = "FOREIGN_ORIGIN"
	CodeSandboxNotFound     Code = "SANDBOX_NOT_FOUND"
	CodeAmbiguousName       Code = "AMBIGUOUS_NAME" // the beginning of more than one name
	CodeTooManySandboxes    Code = "TOO_MANY_SANDBOXES"
	CodeSandboxNotRunning   Code = "SANDBOX_NOT_RUNNING"
	CodeSandboxBusy         Code = "SANDBOX_BUSY" // another host process is at it
	CodeMachineNotSupported Code = "MACHINE_NOT_SUPPORTED"
	CodeEgressNotSupported  Code = "EGRESS_NOT_SUPPORTED"
	CodeGuestFailed         Code = "GUEST_FAILED"
	CodeCheckpointFailed    Code = "CHECKPOINT_FAILED" // and the sandbox goes on
	CodeCheckpointNotFound  Code = "CHECKPOINT_NOT_FOUND"
	CodeRestoreFailed       Code = "RESTORE_FAILED"
	CodeImageNotFound       Code = "IMAGE_NOT_FOUND"
	CodeImageInvalid        Code = "IMAGE_INVALID"       // it isn't what its digests say, or can't be read
	CodeImageNotSupported   Code = "IMAGE_NOT_SUPPORTED" // for another platform, or of a kind that is not known
	CodeImageInUse          Code = "IMAGE_IN_USE"
	CodeRegistryAuth        Code = "REGISTRY_AUTH_FAILED"
	CodeRegistryError       Code = "REGISTRY_ERROR" // it can't be reached, stalls or fails
)

// Codes about the connection and everything else.
const (
	CodeConnectionLost     Code = "CONNECTION_LOST"
	CodeProtocolMismatch   Code = "PROTOCOL_MISMATCH"
	CodeInvalidToken       Code = "INVALID_TOKEN"
	CodeTooManyConnections Code = "TOO_MANY_CONNECTIONS"
	CodeShuttingDown       Code = "SHUTTING_DOWN"
	CodeAlreadyExists      Code = "ALREADY_EXISTS"
	CodeInvalidArgument    Code = "VALIDATION_FAILED"
	CodeNotSupported       Code = "NOT_SUPPORTED"
	CodeInternal           Code = "INTERNAL_ERROR"
)
