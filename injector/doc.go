// Package injector decides which pods get a sidecar, writes it into them, and judges what became of it after all other webhooks
// had their turn. It is pure: the same pod, namespace and settings always give the same answer, and what it is handed stays as it
// was. It believes no mark that says a pod is injected already: its parts are computed anew each time, and replaced.
package injector
