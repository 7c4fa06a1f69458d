// Package registry gets images from registries of containers (OCI distribution-spec 1.1, Docker's registry
// API v2): manifests by tag or digest, and blobs, whose downloads go on where they were cut off.
//
// A registry is not trusted: everything but a tag is named by its digest and checked against it, sizes are
// those that the manifest says and bounded, an answer that stalls is given up, and plain HTTP is spoken to
// this machine alone. The credentials are those of the user's docker configuration, read by this package
// (package authn of go-containerregistry would link Docker's own command line for it).
package registry
