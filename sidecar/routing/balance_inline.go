package routing

import (
	"fmt"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// istioLoadBalancer gives our words in Istio's, which mean the same.
func istioLoadBalancer(lb *v1beta1.LoadBalancer) *istio.LoadBalancer {
	if lb == nil {
		return nil
	}
	out := &istio.LoadBalancer{Simple: string(lb.Simple), WarmupDurationSecs: lb.WarmupDurationSecs}
	if h := lb.ConsistentHash; h != nil {
		out.ConsistentHash = &istio.ConsistentHash{
			HTTPHeaderName: h.HTTPHeaderName, UseSourceIP: h.UseSourceIP, HTTPQueryParameterName: h.HTTPQueryParameterName,
			HTTPCookie: (*istio.HTTPCookie)(h.HTTPCookie), RingHash: (*istio.RingHash)(h.RingHash), Maglev: (*istio.Maglev)(h.Maglev),
			MinimumRingSize: h.MinimumRingSize,
		}
	}
	if w := lb.Warmup; w != nil {
		out.Warmup = &istio.Warmup{Duration: w.Duration}
		if w.MinimumPercent != nil {
			out.Warmup.MinimumPercent = new(float64(*w.MinimumPercent))
		}
	}
	if l := lb.LocalityLbSetting; l != nil {
		out.LocalityLbSetting = &istio.LocalityLbSetting{Enabled: l.Enabled, FailoverPriority: l.FailoverPriority}
		for _, d := range l.Distribute {
			share := istio.LocalityShare{From: d.From, To: map[string]uint32{}}
			for to, percent := range d.To {
				share.To[to] = uint32(max(0, percent))
			}
			out.LocalityLbSetting.Distribute = append(out.LocalityLbSetting.Distribute, share)
		}
		for _, f := range l.Failover {
			out.LocalityLbSetting.Failover = append(out.LocalityLbSetting.Failover, istio.LocalityFailover(f))
		}
	}
	return out
}

// judgeLoadBalancer finds what is wrong with a provider's own words. It refuses what the schema refuses.
func judgeLoadBalancer(f *findings, field string, lb *v1beta1.LoadBalancer) {
	if lb == nil {
		return
	}
	balanceOf(critic{f, Invalid}, field, istioLoadBalancer(lb))
	within := func(at string, n *int64, least, most int64) {
		if n != nil && (*n < least || *n > most) && !f.hasInvalid(field+at) {
			f.invalid(InvalidValue, field+at, "%d is out of range: use %d to %d", *n, least, most)
		}
	}
	atMost := func(at string, n, most int) {
		if n > most {
			f.invalid(InvalidValue, field+at, "has %d entries: at most %d are allowed", n, most)
		}
	}
	if h := lb.ConsistentHash; h != nil {
		if lb.Simple == "UNSPECIFIED" {
			f.invalid(InvalidValue, field+".simple", "is given together with consistentHash: remove one of them")
		}
		within(".consistentHash.ringHash.minimumRingSize", valueOf(h.RingHash).MinimumRingSize, 1, 8_388_608)
		within(".consistentHash.maglev.tableSize", valueOf(h.Maglev).TableSize, 1, 5_000_011)
	}
	if w := lb.Warmup; w != nil && w.MinimumPercent != nil {
		within(".warmup.minimumPercent", new(int64(*w.MinimumPercent)), 1, 100)
	}
	if l := lb.LocalityLbSetting; l != nil {
		atMost(".localityLbSetting.distribute", len(l.Distribute), 64)
		atMost(".localityLbSetting.failover", len(l.Failover), 64)
		atMost(".localityLbSetting.failoverPriority", len(l.FailoverPriority), 8)
		for i := range l.Distribute {
			for to, percent := range l.Distribute[i].To {
				within(fmt.Sprintf(".localityLbSetting.distribute[%d].to[%s]", i, to), new(int64(percent)), 0, 100)
			}
		}
	}
}
