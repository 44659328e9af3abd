package caddysnake

import "testing"

func TestFloorPercent(t *testing.T) {
	tests := []struct {
		live uint64
		want int
	}{
		{0, 3100},
		{4 << 20, 700},
		{16 << 20, 100},
		{1 << 30, 100},
	}
	for _, test := range tests {
		if got := floorPercent(test.live); got != test.want {
			t.Errorf("with %d bytes alive GOGC is %d, want %d", test.live, got, test.want)
		}
	}
}
