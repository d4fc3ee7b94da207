//go:build !race

package dianemo_test

const raced = false
