package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VirtualService is Istio's kind of that name: who answers the calls to its hosts, at the gateways that it is bound to, or in the
// sidecars for a Service that an LLMRoute sends calls to.
type VirtualService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              VirtualServiceSpec `json:"spec,omitempty"`
	Remarks           Remarks            `json:"-"`
}

// VirtualServiceSpec is what is honoured of it.
type VirtualServiceSpec struct {
	Hosts    []string    `json:"hosts,omitempty"`
	Gateways []string    `json:"gateways,omitempty"` // NAME, NAMESPACE/NAME, or mesh for the sidecars; none: mesh
	HTTP     []HTTPRoute `json:"http,omitempty"`
	TLS      []TLSRoute  `json:"tls,omitempty"`
	ExportTo []string    `json:"exportTo,omitempty"` // namespaces, "." for its own, "*" for all; none: all
}

// HTTPRoute is what happens to the calls that one of its matches takes; the first route that has one decides.
type HTTPRoute struct {
	Name             string                 `json:"name,omitempty"`
	Match            []HTTPMatchRequest     `json:"match,omitempty"`
	Route            []HTTPRouteDestination `json:"route,omitempty"`
	Redirect         *HTTPRedirect          `json:"redirect,omitempty"`
	DirectResponse   *HTTPDirectResponse    `json:"directResponse,omitempty"`
	Rewrite          *HTTPRewrite           `json:"rewrite,omitempty"`
	Timeout          *metav1.Duration       `json:"timeout,omitempty"`
	Retries          *HTTPRetry             `json:"retries,omitempty"`
	Fault            *HTTPFaultInjection    `json:"fault,omitempty"`
	Mirror           *Destination           `json:"mirror,omitempty"`
	Mirrors          []HTTPMirrorPolicy     `json:"mirrors,omitempty"`
	MirrorPercent    *int64                 `json:"mirrorPercent,omitempty"`
	MirrorPercentOld *int64                 `json:"mirror_percent,omitempty"`
	MirrorPercentage *Percent               `json:"mirrorPercentage,omitempty"`
	Headers          *Headers               `json:"headers,omitempty"`
}

// HTTPMatchRequest is one way to match: all that it names must hold.
type HTTPMatchRequest struct {
	Name            string                 `json:"name,omitempty"`
	URI             *StringMatch           `json:"uri,omitempty"`
	Scheme          *StringMatch           `json:"scheme,omitempty"`
	Method          *StringMatch           `json:"method,omitempty"`
	Authority       *StringMatch           `json:"authority,omitempty"`
	Headers         map[string]StringMatch `json:"headers,omitempty"`
	WithoutHeaders  map[string]StringMatch `json:"withoutHeaders,omitempty"`
	QueryParams     map[string]StringMatch `json:"queryParams,omitempty"`
	Port            int64                  `json:"port,omitempty"`
	SourceLabels    map[string]string      `json:"sourceLabels,omitempty"`
	SourceNamespace string                 `json:"sourceNamespace,omitempty"`
	Gateways        []string               `json:"gateways,omitempty"`
	IgnoreURICase   bool                   `json:"ignoreUriCase,omitempty"`
}

// StringMatch compares a value. At most one of its fields is given; {} means that the value is there, whatever it is.
type StringMatch struct {
	Exact  *string `json:"exact,omitempty"`
	Prefix *string `json:"prefix,omitempty"`
	Regex  *string `json:"regex,omitempty"` // RE2, of the whole value
}

// HTTPRouteDestination is one of the backends of a route.
type HTTPRouteDestination struct {
	Destination Destination `json:"destination,omitempty"`
	Weight      int32       `json:"weight,omitempty"` // of several, those without one get nothing
	Headers     *Headers    `json:"headers,omitempty"`
}

// Destination names a Service, a subset of it and its port.
type Destination struct {
	Host   string        `json:"host,omitempty"`
	Subset string        `json:"subset,omitempty"`
	Port   *PortSelector `json:"port,omitempty"`
}

// PortSelector is a port's number.
type PortSelector struct {
	Number int64 `json:"number,omitempty"`
}

// Headers are changes of headers.
type Headers struct {
	Request  *HeaderOperations `json:"request,omitempty"`
	Response *HeaderOperations `json:"response,omitempty"`
}

// HeaderOperations are changes of the headers of one direction.
type HeaderOperations struct {
	Set    map[string]string `json:"set,omitempty"`
	Add    map[string]string `json:"add,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

// HTTPRedirect is an answer that sends the client elsewhere.
type HTTPRedirect struct {
	URI           string `json:"uri,omitempty"`
	PrefixRewrite string `json:"prefixRewrite,omitempty"`
	Authority     string `json:"authority,omitempty"`
	Port          int64  `json:"port,omitempty"`
	DerivePort    string `json:"derivePort,omitempty"` // FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT
	Scheme        string `json:"scheme,omitempty"`
	RedirectCode  int64  `json:"redirectCode,omitempty"` // default: 301
}

// HTTPDirectResponse is a fixed answer.
type HTTPDirectResponse struct {
	Status int64     `json:"status,omitempty"`
	Body   *HTTPBody `json:"body,omitempty"`
}

// HTTPBody is text or bytes.
type HTTPBody struct {
	String *string `json:"string,omitempty"`
	Bytes  *string `json:"bytes,omitempty"` // base64
}

// HTTPRewrite is what is different about the request at the backend.
type HTTPRewrite struct {
	URI             string        `json:"uri,omitempty"`
	Authority       string        `json:"authority,omitempty"`
	URIRegexRewrite *RegexRewrite `json:"uriRegexRewrite,omitempty"`
}

// RegexRewrite replaces what matches in a path. In rewrite, \1 stands for the first group.
type RegexRewrite struct {
	Match   string `json:"match,omitempty"`
	Rewrite string `json:"rewrite,omitempty"`
}

// HTTPRetry says what is tried again.
type HTTPRetry struct {
	Attempts                 int32            `json:"attempts,omitempty"`
	PerTryTimeout            *metav1.Duration `json:"perTryTimeout,omitempty"`
	RetryOn                  string           `json:"retryOn,omitempty"` // words and statuses, separated by commas
	RetryIgnorePreviousHosts *bool            `json:"retryIgnorePreviousHosts,omitempty"`
}

// HTTPFaultInjection is trouble made on purpose.
type HTTPFaultInjection struct {
	Delay *FaultDelay `json:"delay,omitempty"`
	Abort *FaultAbort `json:"abort,omitempty"`
}

// FaultDelay holds calls back.
type FaultDelay struct {
	FixedDelay *metav1.Duration `json:"fixedDelay,omitempty"`
	Percent    int32            `json:"percent,omitempty"` // the older form of percentage
	Percentage *Percent         `json:"percentage,omitempty"`
}

// FaultAbort answers calls with an error.
type FaultAbort struct {
	HTTPStatus int32    `json:"httpStatus,omitempty"`
	Percentage *Percent `json:"percentage,omitempty"` // none: all
}

// Percent is a share, of 100.
type Percent struct {
	Value float64 `json:"value,omitempty"`
}

// HTTPMirrorPolicy sends copies of calls to a backend.
type HTTPMirrorPolicy struct {
	Destination *Destination `json:"destination,omitempty"`
	Percentage  *Percent     `json:"percentage,omitempty"` // none: all
}

// TLSRoute is where connections go that a gateway passes through, by the name that they ask for.
type TLSRoute struct {
	Match []TLSMatchAttributes `json:"match,omitempty"`
	Route []RouteDestination   `json:"route,omitempty"`
}

// TLSMatchAttributes is one way to match: all that it names must hold.
type TLSMatchAttributes struct {
	SNIHosts        []string          `json:"sniHosts,omitempty"`
	Port            int64             `json:"port,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	Gateways        []string          `json:"gateways,omitempty"`
}

// RouteDestination is one of the backends of a TLSRoute.
type RouteDestination struct {
	Destination Destination `json:"destination,omitempty"`
	Weight      int32       `json:"weight,omitempty"`
}
