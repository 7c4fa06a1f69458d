package sandbox

// HostOnly reports whether a method of the guest's main object is for the host
// alone: ending the guest, shutting it off for a checkpoint, the object that OpenCode's plugin gets, and listeners, whose
// descriptors cannot travel. Whoever passes on the calls of others refuses these.
// All other methods act inside the sandbox with its user's rights.
func HostOnly(method string) bool {
	switch method {
	case "shutdown", "suspend", "agent", "listen", "unlisten":
		return true
	}
	return false
}
