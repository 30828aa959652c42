package routing

// Listener is a port that a gateway listens on, as Istio Gateways have it.
type Listener struct {
	Port uint16
	// TLS: connections begin with it, and its SNI chooses the server.
	TLS     bool
	Servers []*EdgeServer // those of the oldest Gateway first

	byHost hostTable[*EdgeServer]
}

// EdgeServer is one of the servers of an Istio Gateway.
type EdgeServer struct {
	Gateway Ref
	Name    string   // as it is written, or its number from 1
	Hosts   []string // in lower case: names, *.SUFFIX or *
	// Refusal says why it cannot serve: a certificate that is missing, for example. Over TLS, there is no handshake then.
	Refusal     *Refusal
	Certificate []Certificate // of a TLS server that is no Passthrough; the first that fits the client is used
	ClientCAs   string        // PEM; clients have to present a certificate of theirs
	ClientNames []string      // one of which a client's certificate has to have; none: any
	// ClientOptional: clients may come without a certificate.
	ClientOptional         bool
	MinVersion, MaxVersion uint16   // as in crypto/tls; 0: its default
	CipherSuites           []uint16 // as in crypto/tls; none: its default
	// Passthrough: TLS is not ended here; SNI finds the rule.
	Passthrough bool
	// ToHTTPS: every request is answered by a redirect to the same at https.
	ToHTTPS bool

	hosts hostTable[*Host]
	sni   hostTable[*Rule]
}

// Certificate is a chain, in PEM, with its key.
type Certificate struct {
	Chain string
	Key   Key
}

// Listeners gives the ports of a gateway, by number. A sidecar has none.
func (t *Table) Listeners() []*Listener { return t.listeners }

// Listener gives the listener of a port; nil where there is none.
func (t *Table) Listener(port uint16) *Listener {
	for _, l := range t.listeners {
		if l.Port == port {
			return l
		}
	}
	return nil
}

// Server finds the server whose hosts a name fits best; nil where none does.
func (l *Listener) Server(name []byte) *EdgeServer { return l.byHost.find(name) }

// Host finds who is called by an authority; nil where no VirtualService or LLMRoute is bound to it.
func (s *EdgeServer) Host(authority []byte) *Host { return s.hosts.find(authority) }

// Behind gives the rule for a connection that is passed through by its SNI; nil where there is none.
func (s *EdgeServer) Behind(sni []byte) *Rule { return s.sni.find(sni) }
