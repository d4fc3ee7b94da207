package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// The files of one run, in its directory:
//
//	orders-<shop>.csv   what the shops sent: order, cents
//	clean-<shop>.csv    the orders that could be read
//	merged.csv          of all shops
//	warehouse.csv       loaded
//	set-by.csv          not loaded, since too many could not be read
//	report.txt
//	disk-full           if it is there, a load breaks off half-way

const ordersOfAShop = 1000

// writeOrders makes up what the shops sent. Some orders can't be read: few, or many.
func writeOrders(dir string, bad bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	every := 100
	if bad {
		every = 10
	}
	for s, shop := range shops {
		var orders [][]string
		for i := range ordersOfAShop {
			cents := strconv.Itoa(100 + (i*7919+s*104729)%100_000)
			if i%every == every-1 {
				cents = "?"
			}
			orders = append(orders, []string{fmt.Sprintf("%s-%04d", shop, i), cents})
		}
		if err := writeCSV(filepath.Join(dir, "orders-"+shop+".csv"), orders); err != nil {
			return err
		}
	}
	// What another run has left would be taken for this one's.
	return remove(dir, "warehouse.csv", "set-by.csv", "report.txt", "disk-full")
}

func breakLoad(dir string) error {
	return os.WriteFile(filepath.Join(dir, "disk-full"), nil, 0o644)
}

func mendLoad(dir string) error { return remove(dir, "disk-full") }

// extract keeps the orders of one shop that can be read.
func extract(dir, shop string) (rows, error) {
	var found rows
	orders, err := readCSV(filepath.Join(dir, "orders-"+shop+".csv"))
	if err != nil {
		return found, err
	}
	var clean [][]string
	for _, order := range orders {
		if cents, err := strconv.Atoi(order[1]); err != nil || cents <= 0 {
			found.Bad++
			continue
		}
		clean = append(clean, order)
	}
	found.Good = len(clean)
	return found, writeCSV(filepath.Join(dir, "clean-"+shop+".csv"), clean)
}

func merge(dir string) (int, error) {
	var all [][]string
	for _, shop := range shops {
		orders, err := readCSV(filepath.Join(dir, "clean-"+shop+".csv"))
		if err != nil {
			return 0, err
		}
		all = append(all, orders...)
	}
	return len(all), writeCSV(filepath.Join(dir, "merged.csv"), all)
}

var errDiskFull = errors.New("the warehouse's disk is full")

// load puts the orders into the warehouse; they come after what is there.
func load(dir string) (int, error) {
	orders, err := readCSV(filepath.Join(dir, "merged.csv"))
	if err != nil {
		return 0, err
	}
	_, full := os.Stat(filepath.Join(dir, "disk-full"))
	if full == nil {
		orders = orders[:len(orders)/2]
	}
	if err := writeCSV(filepath.Join(dir, "warehouse.csv"), orders); err != nil {
		return 0, err
	}
	if full == nil {
		return 0, fmt.Errorf("after %d orders: %w", len(orders), errDiskFull)
	}
	return len(orders), nil
}

func unload(dir string) error { return remove(dir, "warehouse.csv") }

func setBy(dir string) error {
	err := os.Rename(filepath.Join(dir, "merged.csv"), filepath.Join(dir, "set-by.csv"))
	if _, there := os.Stat(filepath.Join(dir, "set-by.csv")); errors.Is(err, fs.ErrNotExist) && there == nil {
		return nil // it was done before
	}
	return err
}

// report sums up what is in the warehouse, if anything.
func report(dir string) (string, error) {
	orders, err := readCSV(filepath.Join(dir, "warehouse.csv"))
	text := "nothing was loaded"
	if err == nil {
		sum := 0
		for _, order := range orders {
			cents, err := strconv.Atoi(order[1])
			if err != nil {
				return "", err
			}
			sum += cents
		}
		text = fmt.Sprintf("%d orders, %d.%02d in all", len(orders), sum/100, sum%100)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return text, os.WriteFile(filepath.Join(dir, "report.txt"), []byte(text+"\n"), 0o644)
}

func readCSV(name string) ([][]string, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = 2
	return reader.ReadAll()
}

// writeCSV writes a file as a whole: under its name there is all of it or nothing.
func writeCSV(name string, lines [][]string) error {
	file, err := os.CreateTemp(filepath.Dir(name), ".etl-")
	if err != nil {
		return err
	}
	writer := csv.NewWriter(file)
	err = writer.WriteAll(lines)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

func remove(dir string, names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
