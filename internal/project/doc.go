// Package project takes the files of a directory of the user's into sandboxes, and brings the work back.
//
// In: [Store.Take] makes a layer, a directory that a sandbox's root file system can have on top of its image, whose
// home/user/project has the directory's files as they are: with uncommitted changes and untracked files, without
// what git ignores unless that is asked for. Of the repository it has the branches, the index and the history, and of its
// configuration what decides how files are read; no hooks, and nothing that could be a secret. Sandboxes made while
// the directory does not change share a layer; one that changed a little shares the unchanged files
// with the layer before (links between layers, never to the directory). It also has what package snapshot begins its states
// with. The directory is only read, and is not
// visible in any sandbox.
//
// Out: [Store.Bring] asks the git in a sandbox for what is new, as a pack of objects, and everything about it is hostile: it is
// checked by index-pack --strict into a repository of its own that is thrown away afterwards, whose configuration is ours.
// [Work.Diff] makes a patch of it, [Work.Pull] a new branch in the directory's repository. Neither opens the sandbox's
// repository, runs anything that it or the project configures, or touches a work tree or an index.
//
// Git does the work; it has to be 2.31 or later. On the user's directory it runs without hooks and without a file
// system monitor, and as the directory's owner when Tongs is root.
package project
