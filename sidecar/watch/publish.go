package watch

import (
	"slices"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// publish replaces the snapshot if the next one differs, and logs what is new in findings since before. What this process
// has served over TLS, and nothing names any more, stays owned.
func publish(log logr.Logger, store *snapshot.Store, next *snapshot.Snapshot, findings, before []finding, all *set) {
	current := store.Load()
	next.Table = next.Table.Retaining(current.Table)
	if next.Telemetry == nil { // nothing has been said yet, or anew
		next.Telemetry = current.Telemetry
	}
	same := current.Ready == next.Ready && current.Table.Generation() == next.Table.Generation()
	if same && slices.Equal(current.Problems, next.Problems) && current.Outage.Equal(next.Outage) && current.Telemetry == next.Telemetry {
		return
	}
	store.Publish(next)
	if !next.Ready || same && slices.Equal(problemsOf(findings), problemsOf(before)) {
		return
	}
	counts := map[routing.Severity]int{}
	for _, p := range next.Problems {
		counts[p.Severity]++
	}
	log.Info("configuration in use", "generation", next.Table.Generation(), "objects", all.objects, "hosts", all.hosts(),
		"invalid", counts[routing.Invalid], "unresolved", counts[routing.Unresolved], "warnings", counts[routing.Warning])
	for _, n := range all.ignored {
		log.V(1).Info("object of another kind is ignored", "kind", n.object.Kind, "name", n.object.Name, "at", n.at.String())
	}
	known := map[routing.Problem]bool{}
	for _, b := range before {
		known[b.Problem] = true
	}
	for _, n := range findings {
		if known[n.Problem] {
			continue
		}
		known[n.Problem] = true
		values := []any{"object", n.Object.String(), "at", n.at.String(), "code", string(n.Code), "field", n.Field, "problem", n.Message}
		if n.Severity == routing.Invalid {
			log.Error(nil, "configuration is invalid", values...)
		} else {
			log.Info("configuration has a problem", append(values, "severity", n.Severity.String())...)
		}
	}
}

func problemsOf(findings []finding) []routing.Problem {
	var all []routing.Problem
	for _, f := range findings {
		all = append(all, f.Problem)
	}
	return all
}
