package figures

import (
	"os"
	"testing"
	"time"
)

func TestQuantilesAreOfWhatWasMeasured(t *testing.T) {
	var times Times
	for i := 200; i > 0; i-- {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	if got := times.String(); got != "p50 101.0 ms, p99 199.0 ms" {
		t.Errorf("of 1 to 200 ms: %s", got)
	}
	if times[0] != 200*time.Millisecond {
		t.Error("they were put into another order")
	}
	if got := (Times{}).Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTheProcessorTimeOfAProcessGrowsWithWhatItDoes(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		after, err := CPUTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before > 2*time.Millisecond {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%v after 10 s of work", after-before)
		}
	}
}

func TestThisProcessHasMemory(t *testing.T) {
	if mib, err := Resident(os.Getpid()); err != nil || mib < 1 || mib > 10_000 {
		t.Errorf("%v MiB: %v", mib, err)
	}
}
