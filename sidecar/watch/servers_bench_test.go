package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// Ten thousand endpoints in slices as large as Kubernetes makes them.
const (
	manySlices = 100
	perSlice   = 100
	pace       = 2 * time.Millisecond // 500 changes a second
)

// wideSlice gives a slice as an API server has it. Its first endpoint is a draining one or not, so that versions can be told apart.
func wideSlice(i, version int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `"metadata":{"name":"llm-%d","generateName":"llm-","namespace":"team","uid":"4cf1b5c0-54b9-4f1c-9a3f-0c1d5f0d%04d","resourceVersion":"%d","generation":%d,`+
		`"labels":{"kubernetes.io/service-name":"llm","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"},`+
		`"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"llm","uid":"5b1f0a3e-7f3b-4c58-8a62-59f2b7f4a2b1","controller":true,"blockOwnerDeletion":true}]},`+
		`"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[`, i, i, version, version)
	for j := range perSlice {
		if j > 0 {
			b.WriteByte(',')
		}
		address := fmt.Sprintf("10.%d.%d.%d", i/100, i%100, j+1)
		if j == 0 { // the one that changes
			address = fmt.Sprintf("10.200.%d.%d", version>>8&255, version&255)
		}
		fmt.Fprintf(&b, `{"addresses":[%q],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":"team",`+
			`"name":"llm-7d9c5b6f4-%05d","uid":"9a3c2d1e-0b4f-4a6d-8c7e-1f2a3b4c%04d"},"nodeName":"node-%d.example.internal","zone":"eu-1%c"}`, address, i*perSlice+j, j, (i*perSlice+j)%500, 'a'+rune(j%3))
	}
	b.WriteByte(']')
	return b.String()
}

// BenchmarkTenThousandServersOfWhichFiveHundredChangeEachSecond prints how long a change takes from the API server to Members, and what it
// costs, with the part of the pretender that sends it, which is little: the text is ready.
func BenchmarkTenThousandServersOfWhichFiveHundredChangeEachSecond(b *testing.B) {
	events := make(chan string, 1000)
	p := tellingOf(b, events)
	a := &API{Config: &rest.Config{Host: p}, Namespace: "team", KeysSecret: v1beta1.KeysSecret, Store: snapshot.NewStore(), Members: snapshot.NewMembers()}
	if err := a.Load(); err != nil {
		b.Fatal(err)
	}
	id := routing.ServersID{Kind: routing.KindService, Namespace: "team", Name: "llm", Port: "http"}
	var mu sync.Mutex
	sent := map[string]time.Time{}
	var took []time.Duration
	all := make(chan struct{}, 1)
	published := 0
	a.Members.OnChange(func(routing.ServersID) {
		servers, _ := a.Members.Of(id)
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		published++
		if len(servers) == manySlices*perSlice && len(all) == 0 {
			all <- struct{}{}
		}
		for _, s := range servers {
			if at, ok := sent[s.Address]; ok {
				delete(sent, s.Address)
				took = append(took, now.Sub(at))
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	<-all
	runtime.GC()
	var idle, before, after runtime.MemStats
	runtime.ReadMemStats(&idle)
	texts := make([]string, b.N)
	for i := range texts {
		texts[i] = `{"type":"MODIFIED","object":{"kind":"EndpointSlice",` + wideSlice(i%manySlices, manySlices+i) + `}}`
	}
	runtime.ReadMemStats(&before)
	cpu := used()
	mu.Lock()
	published, took = 0, nil
	mu.Unlock()
	b.ResetTimer()
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	began := time.Now()
	for i, text := range texts {
		<-ticks.C
		mu.Lock()
		v := manySlices + i
		sent[fmt.Sprintf("10.200.%d.%d", v>>8&255, v&255)] = time.Now()
		mu.Unlock()
		events <- text
	}
	b.StopTimer()
	elapsed := time.Since(began)
	cpu = used() - cpu
	runtime.ReadMemStats(&after)
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	if len(took) > 0 {
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	}
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "changes/s")
	b.ReportMetric(100*cpu.Seconds()/elapsed.Seconds(), "%cpu")
	b.ReportMetric(float64(published)/elapsed.Seconds(), "publications/s")
	b.ReportMetric(float64(idle.HeapAlloc)/(1<<20), "MB-heap")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/1024, "KB/change")
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tellingOf runs an API server with one route to a Service of ten thousand servers, and gives its address.
func tellingOf(b *testing.B, events <-chan string) string {
	b.Helper()
	first := map[string][]string{
		"llmroutes": {toldOf("ADDED", "LLMRoute", "team", "r", "1", backendOf("llm"))},
		"services":  {toldOf("ADDED", "Service", "team", "llm", "1", `"spec":{"ports":[{"name":"http","port":80}]}`)},
	}
	for i := range manySlices {
		first["endpointslices"] = append(first["endpointslices"], `{"type":"ADDED","object":{"kind":"EndpointSlice",`+wideSlice(i, i)+`}}`)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		w.Header().Set("Content-Type", "application/json")
		for _, e := range append(first[resource], endOfList) {
			fmt.Fprintln(w, e)
		}
		for {
			w.(http.Flusher).Flush()
			from := events
			if resource != "endpointslices" {
				from = nil
			}
			select {
			case e := <-from:
				fmt.Fprintln(w, e)
			case <-r.Context().Done():
				return
			}
		}
	}))
	b.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}
