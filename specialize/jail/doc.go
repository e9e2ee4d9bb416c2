// SPDX-License-Identifier: Apache-2.0

// Package jail answers: how is a payload rendered that nobody has to trust?
//
// kustomize and Helm run what a payload says: templates that loop, schemas and expressions that grow. [Renderer] runs
// them in a child process of the same binary, one for each render, that locks itself up before it reads a byte: no new
// privileges, a filter that refuses every system call but those that a Go program computes with (it can open no file and
// no socket, start no program, signal nobody), a limit of memory and of processor time, no environment. It is given
// the payload's files over a pipe, as it asks for them, and gives back objects. What goes wrong in it ends it, and
// nothing else.
package jail
