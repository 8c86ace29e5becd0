//go:build !crashpoints

// Package crash lets tests kill the process between two steps, to show that
// nothing acknowledged is lost there. In normal builds Point is empty and
// costs nothing; with `-tags crashpoints` a process started with
// AFTERSEND_CRASH=name ends by SIGKILL when it comes to that point, with
// AFTERSEND_CRASH=name:3 when it comes there for the third time.
//
// It imports the standard library only and may be used by every room.
package crash

// Point marks a place between two steps. Names are of the form
// room_before_step or room_after_step.
func Point(string) {}
