//go:build linux

package main

import (
	"errors"
	"fmt"
	"strings"
)

// search looks for a key wherever an app can look, with what every image with a shell has.
const search = `kubectl exec -i deployment/sleep -- sh <<'EOF'
  echo as user $(id -u)
  echo in environments: $(cat /proc/[0-9]*/environ | grep -c sk-demo)
  echo in files: $(find / -path /proc -prune -o -path /sys -prune -o \
    -type f -exec grep -l sk-demo {} + 2>/dev/null | wc -l)
EOF`

// keyless shows what the app sees of the keys: nothing.
func (d *demo) keyless() error {
	d.title("What the app sees of the keys: nothing")
	d.say("It looks for them in the environment of every process, then in every file:")
	// The search must be able to fail.
	plant := "kubectl exec deployment/sleep -- sh -c 'echo sk-demo >/tmp/planted'"
	if _, err := d.sh(plant); err != nil {
		return err
	}
	if found, err := d.sh(search); err != nil || !strings.HasSuffix(found, "in environments: 0\nin files: 1") {
		return fmt.Errorf("the search does not find a key that is there: %q (%v)", found, err)
	}
	if _, err := d.sh("kubectl exec deployment/sleep -- rm /tmp/planted"); err != nil {
		return err
	}
	found, err := d.show(search)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(found, "in environments: 0\nin files: 0") {
		return errors.New("there is a key in sight")
	}
	d.say("With its service account it asks the API server for what the sidecar has:")
	ask := `kubectl exec -i deployment/sleep -- sh <<'EOF'
  cd /var/run/secrets/kubernetes.io/serviceaccount
  for what in api/v1/namespaces/` + home + `/secrets/remora-sidecar-keys \
      api/v1/namespaces/` + home + `/secrets/remora-sidecar-access \
      apis/istio.alibabacloud.com/v1beta1/namespaces/` + home + `/llmproviders; do
    curl --silent --cacert ca.crt --header "Authorization: Bearer $(cat token)" \
      https://kubernetes.default.svc/$what | grep -E '"(message|code)"'
  done
EOF`
	said, err := d.show(ask)
	if err != nil {
		return err
	}
	if strings.Count(said, `"code": 403`) != 3 {
		return errors.New("not each of them is forbidden")
	}
	d.notice("The sidecar has a credential of its own, mounted in no container but its own. The app can spend a key on inference, and cannot read it.")
	d.pause()
	return nil
}
