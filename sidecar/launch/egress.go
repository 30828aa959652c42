package launch

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// The environment variables that say how providers outside of the network are reached, as other programs know them. The
// sidecar reads them in lower case too, where these are empty.
const (
	EgressVariable = "HTTPS_PROXY" // a URL, see ParseEgress
	ExceptVariable = "NO_PROXY"    // hosts, domains, addresses and networks that are reached directly, separated by commas
)

const egressForm = "write http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST where the proxy demands credentials, special characters as %XX"

// ParseEgress reads the value of HTTPS_PROXY: http:// or https://, credentials if need be, a host and a port (80 or 443
// where there is none; the result always has it). Without a scheme it is http://. No error quotes the value, which may
// hold a password.
func ParseEgress(value string) (*url.URL, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("it is not the URL of a proxy: " + egressForm)
	}
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("it has the scheme %s, and only HTTP proxies can be used: %s", u.Scheme, egressForm)
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("its port is not one from 1 to 65535: " + egressForm)
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return &url.URL{Scheme: u.Scheme, User: u.User, Host: host + ":" + port}, nil
}
