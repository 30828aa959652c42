package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"remora.dev/remora/test/llmserver"
)

// recorder shows what the provider received, and takes faults: one in a line, in the text form of llmserver.Fault, for the
// coming requests to ?host=, or to any.
func recorder(server *llmserver.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(server.Requests())
	})
	mux.HandleFunc("DELETE /requests", func(w http.ResponseWriter, _ *http.Request) {
		server.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var faults []llmserver.Fault
		for line := range strings.Lines(string(text)) {
			fault, err := llmserver.ParseFault(strings.TrimSpace(line))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			faults = append(faults, fault)
		}
		server.Script(r.URL.Query().Get("host"), faults...)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		server.Unscript()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
