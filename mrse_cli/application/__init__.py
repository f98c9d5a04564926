"""Commands on an application package: make, check, size, deploy, migrate."""
