package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// maxLine is more than a line of the access log has, captures included. What is longer is passed over.
const maxLine = 1 << 20

// The pauses between attempts to read the log of one pod.
const (
	shortPause = time.Second
	longPause  = 30 * time.Second
)

// logLine is a line of a pod's log.
type logLine struct {
	pod  podID
	text []byte
}

// follower reads the logs of the pods of some scopes, while they come and go.
type follower struct {
	client kubernetes.Interface
	scopes []scope
	once   bool      // ends with what is there
	from   time.Time // zero: last says where to begin
	last   int64     // lines of each pod; 0: all
	most   int       // pods

	lines chan logLine
	notes chan string // what is to be known beside the lines

	mu      sync.Mutex
	pods    map[podID]context.CancelFunc
	left    map[podID]bool // are not followed, as there are too many
	running sync.WaitGroup
}

// run ends with ctx; or, where only what is there is wanted, when that has been read.
func (f *follower) run(ctx context.Context) error {
	f.pods, f.left = map[podID]context.CancelFunc{}, map[podID]bool{}
	defer f.running.Wait()
	found := 0
	for _, sc := range f.scopes {
		err := sc.pods(ctx, f.client, func(pod *corev1.Pod) {
			if serverOf(pod) != nil {
				found++
				f.begin(ctx, pod, false)
			}
		})
		if err != nil {
			return explained(err, "the pods cannot be listed", "to list pods")
		}
	}
	if f.once {
		return nil
	}
	if found == 0 {
		f.note(ctx, "there is no pod with a sidecar, and no gateway, yet")
	}
	var informers sync.WaitGroup
	defer informers.Wait()
	for _, sc := range f.scopes {
		informers.Go(func() { f.watch(ctx, sc) })
	}
	<-ctx.Done()
	return nil
}

// watch follows which pods there are.
func (f *follower) watch(ctx context.Context, sc scope) {
	tune := func(o *metav1.ListOptions) {
		o.LabelSelector = sc.selector
		if sc.name != "" {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", sc.name).String()
		}
	}
	from := cache.NewFilteredListWatchFromClient(f.client.CoreV1().RESTClient(), "pods", sc.namespace, tune)
	informer := cache.NewSharedInformer(from, &corev1.Pod{}, 0)
	look := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok && serverOf(pod) != nil {
			f.begin(ctx, pod, true)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, now any) { look(now) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				f.end(podID{pod.Namespace, pod.Name})
			}
		},
	})
	if err != nil {
		f.note(ctx, err.Error())
		return
	}
	_ = informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		if !errors.Is(err, io.EOF) && ctx.Err() == nil {
			f.note(ctx, explained(err, "pods that come now are not seen", "to watch pods").Error())
		}
	})
	informer.RunWithContext(ctx)
}

// begin reads the log of a pod, if nobody does yet. A new pod's is read from its beginning.
func (f *follower) begin(ctx context.Context, pod *corev1.Pod, later bool) {
	server := serverOf(pod)
	if !server.running && (later || server.restarts == 0) && !f.once {
		return // there is no log until it has begun, which is an event of its own
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := server.podID
	switch {
	case f.pods[id] != nil || ctx.Err() != nil:
		return
	case len(f.pods) >= f.most:
		if !f.left[id] {
			f.left[id] = true
			f.running.Go(func() {
				f.note(ctx, fmt.Sprintf("%s is not followed: %d pods are, see --max-pods", id, f.most))
			})
		}
		return
	}
	running, cancel := context.WithCancel(ctx)
	f.pods[id] = cancel
	from, last := f.from, f.last
	if later {
		from, last = pod.CreationTimestamp.Time, 0
	}
	f.running.Go(func() {
		defer cancel()
		f.follow(running, server, from, last)
	})
}

// end stops reading the log of a pod that is gone. What it had written has been read: the log ends before the pod does.
func (f *follower) end(id podID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel := f.pods[id]; cancel != nil {
		cancel()
		delete(f.pods, id)
	}
	delete(f.left, id)
}

func (f *follower) note(ctx context.Context, text string) {
	select {
	case f.notes <- text:
	case <-ctx.Done():
	}
}

// follow reads the log of a pod until ctx ends. Its container may be started again, and the connection may break: then it goes on where it was.
func (f *follower) follow(ctx context.Context, of *server, from time.Time, last int64) {
	told := ""
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		options := &corev1.PodLogOptions{Container: of.Container, Follow: !f.once, Timestamps: true}
		if !from.IsZero() {
			options.SinceTime = &metav1.Time{Time: from}
		}
		if last > 0 {
			options.TailLines = &last
		}
		stream, err := f.client.CoreV1().Pods(of.Namespace).GetLogs(of.Name, options).Stream(ctx)
		if err == nil {
			before := from
			from, err = f.copy(ctx, of.podID, stream, from)
			if err == nil || !from.Equal(before) {
				pause, told = shortPause, ""
			}
			last = 0
		}
		switch {
		case ctx.Err() != nil, f.once && err == nil, apierrors.IsNotFound(err):
			return
		case err != nil:
			if text := explained(err, of.String(), "to get pods/log").Error(); text != told {
				f.note(ctx, text)
				told = text
			}
			if f.once {
				return
			}
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// copy hands on the lines of a log that are later than from, and gives the time of the last one.
func (f *follower) copy(ctx context.Context, pod podID, stream io.ReadCloser, from time.Time) (time.Time, error) {
	defer stream.Close()
	in := bufio.NewReaderSize(stream, 64<<10)
	for {
		line, err := readLine(in)
		stamp, text, found := bytes.Cut(line, []byte(" "))
		at, stampErr := time.Parse(time.RFC3339Nano, string(stamp))
		// The API server knows seconds only: what came within the last one before from has been shown already.
		if found && stampErr == nil && at.After(from) {
			from = at
			if bytes.HasPrefix(text, []byte("{")) {
				select {
				case f.lines <- logLine{pod, bytes.Clone(text)}:
				case <-ctx.Done():
					return from, ctx.Err()
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return from, nil
		} else if err != nil {
			return from, err
		}
	}
}

// readLine reads a line without its end; of one that is too long, nothing.
func readLine(in *bufio.Reader) ([]byte, error) {
	var whole []byte
	long := false
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(whole)+len(part) > maxLine; !long {
			whole = append(whole, part...)
		} else {
			whole = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(whole, "\r\n"), err
		}
	}
}
