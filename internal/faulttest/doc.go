// Package faulttest has no code of its own. Its tests run peers as processes of
// their own against real Redis processes, and kill, pause and cut off both. What
// the peers do is told by a witness that Redis has no part in: a pipe to the
// test.
//
// It needs Linux, which ends children with their parent.
package faulttest
