// Package snapshot keeps states of a project in its sandbox, so that the project can be put back
// into one of them.
//
// A state is a tree of git's, in a repository of its own beside the project
// (~/.local/share/tongs/snapshot.git, with an index of its own): the user's history, index and
// configuration are neither read nor written. What a state holds is what git would add: everything that
// .gitignore, .git/info/exclude or the like do not leave out, be it written by an editor, a tool or a command.
//
// What a state leaves out stays as it is when another state is put back: ignored files, files of more than
// [MaxFileBytes], files that the sandbox's user may not read, repositories within the project, empty
// directories, devices and sockets, and all of a file but its bytes and whether it is executable.
//
// Git does the work, in the sandbox, and what is kept there belongs to the sandbox's user: a program in it can
// spoil its own states, and nothing else. Without git, every call fails with NOT_SUPPORTED.
package snapshot
