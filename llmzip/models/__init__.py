"""Models as the archiver keeps them: conversion, the exact artefact, the store and the known names."""
