package files

// OpenByName is how files are opened where there is no openat2.
var OpenByName = openByName
