package sandbox

import "sync"

// row is what is known of a code.
type row struct {
	status  int    // of HTTP
	meaning string // what has happened
	advice  string // what to do, where an error has no hint of its own
}

// registry is every code that whoever uses a sandbox can meet: one that isn't here isn't one.
var registry = sync.OnceValue(func() map[Code]row {
	return map[Code]row{
		CodeFileNotFound:     {404, "there is nothing at the path", "list the directory; relative paths begin at the project directory"},
		CodeFileExists:       {409, "there is something at the path already", "choose another path, or ask for it to be replaced"},
		CodeFileTooLarge:     {413, "it does not fit into one message", "read or write it as a stream"},
		CodeIsDirectory:      {400, "it is a directory", "name a file, or list the directory"},
		CodeNotDirectory:     {400, "part of the path is no directory", "name a directory"},
		CodeNotRegular:       {400, "it is a FIFO, a socket or a device", "only regular files can be read and written: use a command for others"},
		CodeDirNotEmpty:      {409, "the directory has something in it", "ask for a recursive removal"},
		CodeNoSpace:          {507, "the disk, a quota or a limit for one file is full", "remove something in the sandbox, or give it more disk"},
		CodeReadOnly:         {403, "the file system cannot be written", "write under the home directory or /tmp"},
		CodeNameTooLong:      {400, "the path is too long", "a name may take 255 bytes, a path 4,095"},
		CodeInvalidPath:      {400, "that is no path", "a path is not empty and holds no NUL byte"},
		CodeSymlinkLoop:      {400, "symbolic links lead around in a circle", "look at them with a listing, and remove one"},
		CodeTooManyFiles:     {429, "too many files are open", "close something and try again"},
		CodeVersionMismatch:  {412, "the file is no longer the one that was read", "read it again, and make the change to what it is now"},
		CodeCrossDevice:      {400, "the two paths are on different file systems", "copy it, then remove the old one"},
		CodeTextNotFound:     {409, "the text to be replaced is not in the file", "read the file and give the text as it is there"},
		CodeTextNotUnique:    {409, "the text to be replaced is there more than once", "give more of the lines around it, or ask for all to be replaced"},
		CodePatchFailed:      {409, "the patch does not fit the files; none was changed", "read the files and make the patch anew"},
		CodeUnsafeArchive:    {400, "the archive would write outside its directory, or make a device", "do not trust it"},
		CodeArchiveTooLarge:  {413, "the archive holds more than the caller's bounds", "raise them if it is to be trusted"},
		CodeInvalidArchive:   {400, "it is no archive of a known format, or a damaged one", "tar, tar.gz and tar.zst are known"},
		CodeTooManyWatches:   {429, "too much is watched", "close a watch, watch less of the tree, or exclude directories"},
		CodeFilesystemError:  {500, "the file system failed", "the message is the kernel's; try again, then look at the disk"},
		CodePermissionDenied: {403, "there is no right to it", "use what the sandbox's user owns, or a token that is good for it"},

		CodeCommandNotFound:         {404, "there is no such program", "look at the spelling and at PATH, or install it"},
		CodeCommandPermissionDenied: {403, "the program may not be run", "chmod +x it, or name its interpreter"},
		CodeCommandExecutionError:   {500, "the program could not be started", "the message is the kernel's"},
		CodeInvalidCommand:          {400, "what is to be run is not well formed", "argv is a program and its arguments, without NUL bytes"},
		CodeProcessNotFound:         {404, "no process of that id is known", "list the processes; ended ones are forgotten after ten minutes"},
		CodeProcessExists:           {409, "a process of that id is there already", "choose another id, or remove that one"},
		CodeProcessExited:           {409, "the process has ended", "read its log and its exit"},
		CodeTooManyProcesses:        {429, "the sandbox has as many processes as it may have", "end some, or create it with a higher limit"},
		CodeStdinClosed:             {409, "the process has no standard input, or no longer", "start it with standard input open"},
		CodeStdinTaken:              {409, "another writer has taken standard input over", "open it again to take it back"},
		CodeExitedBeforeReady:       {500, "the process ended before what was waited for", "read its log and its exit"},
		CodeReadyTimeout:            {408, "what was waited for did not come in time", "read the process's log, or wait longer"},
		CodeSessionExists:           {409, "a shell session of that name is there already", "open that one, or choose another name"},
		CodeSessionNotFound:         {404, "there is no such session", "create it first"},
		CodeSessionDestroyed:        {410, "the session was deleted", "create it again"},
		CodeToolNotFound:            {404, "there is no such tool", "look at the spelling"},
		CodeToolFailed:              {500, "the tool could not do it", "the message says why"},
		CodeCallConflict:            {409, "one call id was used for two different calls", "give each call an id of its own"},
		CodeRunLost:                 {410, "the run is not known any more", "look at what it did, then call again with another id"},
		CodeRejected:                {403, "the permission that was asked for was not given", "ask the person, or do something else"},
		CodeAborted:                 {499, "it was aborted", "call again if it is wanted after all"},
		CodeTimeout:                 {408, "it took longer than it was given", "give it more time; what was printed until then is kept"},

		CodeInvalidPort:          {400, "that is no port", "ports are 1 to 65535"},
		CodePortInUse:            {409, "something listens on the port already", "choose another port, or end what listens"},
		CodeServiceNotResponding: {502, "nothing answers at the port", "start what should listen, and wait for the port"},

		CodeGitRepositoryNotFound: {404, "there is no such repository, or it may not be seen", "look at the URL; a private one needs credentials"},
		CodeGitBranchNotFound:     {404, "the repository has no such branch", "look at the spelling, or leave it out"},
		CodeGitAuthFailed:         {401, "the server refuses the credentials", "give a token that may read the repository"},
		CodeGitNetworkError:       {502, "the server was not reached", "look at the URL and at what the sandbox may reach, then try again"},
		CodeInvalidGitURL:         {400, "that is no URL of a repository", "write https://host/path"},
		CodeGitCloneFailed:        {500, "git failed", "the message is git's"},

		CodePythonNotAvailable:     {501, "the sandbox has no Python", "install python3, or use another language"},
		CodeJavaScriptNotAvailable: {501, "the sandbox has no JavaScript", "install Node.js, or use another language"},
		CodeTypeScriptNotAvailable: {501, "the sandbox cannot run TypeScript", "install Node.js 22.13 or later, or run JavaScript"},
		CodeInterpreterNotReady:    {503, "the interpreter is not ready", "try again"},
		CodeInterpreterCrashed:     {500, "the interpreter ended, and the context's state with it", "run the code again: it begins anew"},
		CodeContextNotFound:        {404, "there is no such context", "create it first"},

		CodeUnauthorized:        {401, "the token is missing, wrong, revoked or expired", "send `Authorization: Bearer <token>`, with the token of the file api-token in Tongs' home"},
		CodeForeignOrigin:       {403, "a page of another origin asks", "open the page from the server itself"},
		CodeSandboxNotFound:     {404, "there is no such sandbox", "list the sandboxes, or create it"},
		CodeAmbiguousName:       {409, "more than one sandbox's name begins like that", "write more of the name"},
		CodeTooManySandboxes:    {429, "there are as many sandboxes as there may be", "destroy some"},
		CodeSandboxNotRunning:   {503, "the sandbox is stopped", "start it"},
		CodeSandboxBusy:         {503, "another process of the host works on the sandbox", "try again"},
		CodeMachineNotSupported: {501, "this machine cannot run sandboxes so", "`tongs doctor` says what would change that"},
		CodeEgressNotSupported:  {501, "this machine cannot give sandboxes a way out", "`tongs doctor` says what would change that"},
		CodeImageNotFound:       {404, "there is no such image, or a part of it is gone", "pull or import it: `tongs image pull`"},
		CodeRegistryError:       {502, "the registry was not reached, stalled or failed", "try again: what was downloaded is kept"},
		CodeRegistryAuth:        {401, "the registry refuses the credentials, or wants some", "`docker login`, as the user who runs Tongs"},
		CodeImageInUse:          {409, "sandboxes use the image", "destroy them first, or force it: its files stay until they are gone"},
		CodeImageNotSupported:   {501, "the image is for another platform, or of a kind that is not known", "the message says what there is"},
		CodeImageInvalid:        {502, "the image is not what its digests say, or can't be read", "try again; then tell whoever runs the registry"},
		CodeCheckpointFailed:    {500, "what runs in the sandbox could not be written down; it goes on", "the message says what is in the way"},
		CodeCheckpointNotFound:  {404, "the sandbox has no checkpoint", "make one while it runs; what is used starts it anyway"},
		CodeRestoreFailed:       {500, "the sandbox could not go on from its checkpoint", "the message says why; `tongs sandbox restore --fresh` starts it from its files alone"},
		CodeGuestFailed:         {500, "what runs inside the sandbox did not start, or died", "start the sandbox again; the host's log says more"},

		CodeConnectionLost:     {503, "the connection broke", "connect again; what was running in the sandbox still is"},
		CodeProtocolMismatch:   {426, "the two sides speak different versions", "use the same version on both sides"},
		CodeInvalidToken:       {403, "the token is none, was used, or has expired", "ask for a new one"},
		CodeTooManyConnections: {503, "too many connections are open", "close some and try again"},
		CodeShuttingDown:       {503, "it is about to end", "connect again later"},
		CodeAlreadyExists:      {409, "it is there already", "use that one, or choose another name"},
		CodeInvalidArgument:    {400, "an argument cannot be what it is", "the message says which"},
		CodeNotSupported:       {501, "there is no such thing here", "the message says why"},
		CodeInternal:           {500, "something failed that should not", "try again; the host's log says more"},
	}
})

// HTTPStatus is the status with which an HTTP front answers this kind of
// failure; 500 for a code that isn't in the registry.
func (c Code) HTTPStatus() int {
	if r, ok := registry()[c]; ok {
		return r.status
	}
	return 500
}

// Meaning says in words what has happened; "" for a code that isn't in the registry.
func (c Code) Meaning() string { return registry()[c].meaning }

// Advice says what to do about this kind of failure. An error's own hint knows more, where there is one.
func (c Code) Advice() string { return registry()[c].advice }

// Known reports whether the code is in the registry.
func (c Code) Known() bool { _, ok := registry()[c]; return ok }

// Codes lists the registry, in no order.
func Codes() []Code {
	all := make([]Code, 0, len(registry()))
	for c := range registry() {
		all = append(all, c)
	}
	return all
}
