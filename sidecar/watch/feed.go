package watch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// When to ask the API server again. The first time at once, then after a random part of a time that doubles.
const (
	againTime   = 50 * time.Millisecond
	maxAgain    = 30 * time.Second
	listTime    = time.Minute            // for a list, as API servers limit it themselves
	lastingTime = 500 * time.Millisecond // a watch that lasted so long was a good one
)

// feed follows the objects of one kind. It is the store of a Reflector.
type feed struct {
	*kindOfFeed
	namespace string // empty: all
	only      string // the name of the only object to follow; empty: all
	selector  string // of labels; empty: all
	client    rest.Interface
	store     cache.ReflectorStore // takes what is told: the feed itself, or what is made of EndpointSlices
	trim      func(*document)      // takes from what arrives what is not to be kept; may be nil
	began     time.Time
	stop      context.CancelFunc // nil: it ends with all
	changed   func()             // something of what state gives
	back      func()             // the API server is there again
	retry     chan struct{}

	// Of the goroutine that asks.
	version   int // of versions
	asked     time.Time
	quick     int   // how often in a row it was asked in vain, or for a short time
	streaming error // of the last try to have a list streamed
	pause     time.Duration

	mu      sync.Mutex
	objects map[types.NamespacedName]*arrival
	changes int // of objects; 0 before they are known
	trouble error
	since   time.Time // since when it is as it is: in trouble, or not
	refused time.Time // since when trouble is a refusal
	absent  time.Time // since when there is no such kind; zero: there is
}

// run follows until ctx ends.
func (f *feed) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, logr.Discard()) // what matters is told by trouble, once
	r := cache.NewReflectorWithOptions(
		&cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch}, &wireObject{}, f.store,
		cache.ReflectorOptions{Name: f.resource, TypeDescription: f.resource, Backoff: &wait.Backoff{Duration: againTime, Factor: 2, Jitter: 1, Steps: 5}},
	)
	for ctx.Err() == nil {
		if err := r.ListAndWatchWithContext(ctx); err != nil && f.healthy() && !f.missing(err) {
			f.fail(ctx, err)
		}
	}
}

// watch is the Reflector's way to open a watch. All waiting is done here, where the end of ctx is heeded.
func (f *feed) watch(ctx context.Context, options metav1.ListOptions) (kwatch.Interface, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	options.Watch = true
	try := &attempt{}
	w, err := f.request(&options).Watch(context.WithValue(ctx, attemptKey{}, try))
	if err == nil && try.err != nil { // client-go takes some failures for a watch that has ended
		w.Stop()
		w, err = nil, try.err
	}
	if options.SendInitialEvents != nil {
		f.streaming = err
	}
	switch {
	case err == nil:
		f.succeed()
		return w, nil
	case options.SendInitialEvents != nil && unsupported(err): // a list follows
	default:
		f.fail(ctx, err)
	}
	return nil, opaque(err)
}

// list is the Reflector's way to list, which it tries where a list cannot be streamed. A server that has only
// refused the request for now is not asked for the same in a way that costs it more.
func (f *feed) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if f.streaming != nil && !unsupported(f.streaming) {
		return nil, opaque(f.streaming)
	}
	list, err := f.request(&options).Timeout(listTime).Do(ctx).Get()
	if l, ok := list.(*wireList); err == nil && (!ok || l.Kind != f.kind+"List") {
		err = fmt.Errorf("the answer is no %sList", f.kind) // and an empty one would end everything
	}
	if err != nil {
		f.fail(ctx, err)
		return nil, opaque(err)
	}
	f.succeed()
	return list, nil
}

// unsupported tells whether the server does not know how to stream a list.
func unsupported(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) }

func (f *feed) request(options *metav1.ListOptions) *rest.Request {
	if f.only != "" {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", f.only).String()
	}
	options.LabelSelector = f.selector
	return f.client.Get().AbsPath(f.path(f.version, f.namespace)).SpecificallyVersionedParams(options, metav1.ParameterCodec, metav1.Unversioned).MaxRetries(0)
}

// await waits until the API server may be asked.
func (f *feed) await(ctx context.Context) error {
	if time.Since(f.asked) > lastingTime && f.healthy() {
		f.quick = 0
	} else {
		f.quick++
	}
	select {
	case <-f.retry: // news from before are none
	default:
	}
	timer := time.NewTimer(f.pause + backOff(f.quick))
	defer timer.Stop()
	f.pause = 0
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-f.retry:
	}
	f.asked = time.Now()
	return nil
}

// backOff gives the time to wait before the nth quick question in a row: none before the first.
func backOff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return rand.N(min(againTime<<min(n-1, 20), maxAgain))
}

func (f *feed) healthy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble == nil && f.absent.IsZero()
}

// fail notes that objects cannot be followed.
func (f *feed) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) { // the Reflector lists again
		return
	}
	if f.missing(err) {
		f.miss()
		return
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		f.pause = time.Duration(min(seconds, int(maxAgain/time.Second))) * time.Second
	}
	f.mu.Lock()
	now := time.Now()
	if f.trouble == nil {
		f.since = now
	}
	if isRefusal(err) && !isRefusal(f.trouble) {
		f.refused = now
	}
	f.trouble = err
	f.mu.Unlock()
	f.changed()
}

// missing tells whether there is no such kind, where that is no trouble.
func (f *feed) missing(err error) bool { return f.optional && apierrors.IsNotFound(err) }

// miss notes that there is no such kind in the version that was asked for. The next one is asked for at once; where there is none, all of
// them are asked for again from time to time. Objects that were there are kept for a while, or until they are deleted: a definition that
// is replaced is away for a moment, and so are all of them while an API server starts.
func (f *feed) miss() {
	if f.version = (f.version + 1) % len(f.versions); f.version != 0 {
		f.quick--
		return
	}
	now := time.Now()
	f.mu.Lock()
	known, objects := f.changes > 0, len(f.objects)
	f.trouble = nil
	if f.absent.IsZero() {
		f.absent = now
	}
	gone := now.Sub(f.absent) > settleAccess
	f.mu.Unlock()
	if !known || gone && objects > 0 {
		_ = f.store.Replace(nil, "")
		return
	}
	f.changed()
}

// succeed notes that they can.
func (f *feed) succeed() {
	f.mu.Lock()
	was := f.trouble != nil || !f.absent.IsZero()
	f.trouble, f.absent = nil, time.Time{}
	if was {
		f.since = time.Now()
	}
	f.mu.Unlock()
	if was {
		f.changed()
		f.back()
	}
}

// state is what a feed knows.
type state struct {
	*feed
	changes int
	trouble error
	since   time.Time // since when it is so, or there is none
	refused time.Time // zero: it is no refusal
}

func (f *feed) state() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := state{feed: f, changes: f.changes, trouble: f.trouble, since: f.since}
	if isRefusal(f.trouble) {
		s.refused = f.refused
	}
	return s
}

// arrivals gives what there is, by name.
func (f *feed) arrivals() []*arrival {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*arrival
	order := func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	for _, name := range slices.SortedFunc(maps.Keys(f.objects), order) {
		all = append(all, f.objects[name])
	}
	return all
}
