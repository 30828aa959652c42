package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// Files follows configuration in files.
type Files struct {
	// Path is a file, or a folder whose files *.yaml, *.yml and *.json are read, not those of folders in it and
	// not those whose names begin with a dot.
	Path string
	// Labels are those of the workload that is served. Its namespace is that of the files.
	Labels map[string]string
	// Gateway: the workload is a gateway, and objects of all namespaces count. Its own is the only one that they name, or
	// v1beta1.GatewayName where there are several.
	Gateway bool
	// Place is where the process is.
	Place Place
	// PodLabels has them instead, if it is set.
	PodLabels *PodLabels
	// Log hears of each change once, and of each problem once.
	Log logr.Logger
	// Store is where configurations are published.
	Store *snapshot.Store
	// Members is where it is published who the servers are.
	Members *snapshot.Members

	source   *source
	findings []finding // of the configuration that is published
	tuning   tuning
	lost     error     // why Path as a whole cannot be read now
	intact   []finding // those of the last good reading, while there is an error
}

// Load reads Path once and publishes what it holds. The error says that Path cannot be read at all. It is
// called before Run, if the first reading is to be awaited.
func (f *Files) Load() error {
	for tries := 0; ; tries++ {
		err := f.refresh()
		if !errors.Is(err, errMoving) || tries == maxTries {
			return reason(err)
		}
	}
}

// maxTries bounds how often files that change all the time are read again before there is an error.
const maxTries = 10

// Run follows Path until ctx ends. From the first good reading on, nothing that happens to Path stops it:
// what was read last keeps running.
func (f *Files) Run(ctx context.Context) {
	n := newNotifier(f.Path, f.Log)
	defer n.close()
	if f.PodLabels != nil {
		var running sync.WaitGroup
		defer running.Wait()
		n.wake = make(chan struct{}, 1)
		running.Go(func() {
			f.PodLabels.run(ctx, func() {
				select {
				case n.wake <- struct{}{}:
				default: // it will look anyway
				}
			})
		})
	}
	for {
		n.attach()
		if err := f.refresh(); errors.Is(err, errMoving) {
			n.again()
		} else {
			f.lose(err)
		}
		if !n.wait(ctx) {
			return
		}
	}
}

// refresh reads what has changed and publishes it.
func (f *Files) refresh() error {
	if f.source == nil {
		f.source = newSource(f.Path, &routing.Workload{Labels: f.Labels, Gateway: f.Gateway})
	}
	now := time.Now()
	changed, err := f.source.read(now)
	if err != nil {
		return err
	}
	if f.PodLabels != nil {
		labels := *f.PodLabels.current.Load()
		changed = changed || !maps.Equal(labels, f.source.workload.Labels)
		f.source.workload = &routing.Workload{Labels: labels, Gateway: f.Gateway}
	}
	if !changed && f.lost == nil {
		return nil
	}
	f.lost = nil
	table, findings, all := f.source.compile(now)
	before := f.findings
	told := f.tuning.settings
	f.tuning.tune(all)
	f.findings = f.tuning.with(append(f.source.faults(), findings...))
	f.enrol(table, all)
	if f.tuning.settings != told {
		f.tuning.tell(f.Log)
	}
	publish(f.Log, f.Store, &snapshot.Snapshot{Table: table, Problems: problemsOf(f.findings), Ready: true, Telemetry: f.tuning.settings}, f.findings, before, all)
	return nil
}

// enrol publishes who the servers are, before calls are sent to them. Who those of a Service without EndpointSlices are is not known:
// calls go to its own address.
func (f *Files) enrol(table *routing.Table, all *set) {
	if f.Members == nil {
		return
	}
	f.Place.of(f.source.workload.Labels).publish(f.Members)
	wanted, r := table.ServersIDs(), roster{f.Members}
	now, written := routing.ServersOf(all.slices()), map[routing.ServersID]bool{}
	for _, slice := range all.slices() {
		written[slice.Of] = true
	}
	for id := range wanted {
		if _, there := now[id]; there {
			continue
		}
		if written[owner(id)] {
			now[id] = nil
		} else {
			f.Members.Withdraw(id) // its slices may have been taken away
		}
	}
	r.publish(wanted, now)
	r.keep(wanted)
}

// lose notes that Path cannot be read, once.
func (f *Files) lose(err error) {
	if err == nil || f.lost != nil && f.lost.Error() == err.Error() {
		return
	}
	current := f.Store.Load()
	then := "what was read before keeps running"
	if !current.Ready {
		then = "until it can be read, all calls are refused"
	}
	f.Log.Error(err, "the configuration cannot be read", "path", f.Path, "then", then)
	lost := finding{routing.Problem{
		Object: pathRef(fileKind, f.Path), Severity: routing.Invalid, Code: routing.ConfigurationUnread,
		Message: fmt.Sprintf("cannot be read: %s; %s", reason(err), then),
	}, place{file: f.Path}}
	if f.lost == nil {
		f.intact = f.findings
	}
	f.lost, f.findings = err, append([]finding{lost}, f.intact...)
	f.Store.Publish(&snapshot.Snapshot{Table: current.Table, Problems: problemsOf(f.findings), Ready: current.Ready, Telemetry: current.Telemetry})
}
