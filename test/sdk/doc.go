// Package sdk holds tests only: real SDKs talk to a provider directly and through the sidecar's own binary, and what an
// SDK sees has to be the same. It is a module of its own, so that the product's go.mod does not know the SDKs.
package sdk
