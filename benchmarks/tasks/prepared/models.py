"""The tables: orders of people, who live in cities and work in departments of companies."""

from django.db import models


class Base(models.Model):
    """What all have."""

    name = models.CharField(max_length=40)

    class Meta:
        abstract = True
        app_label = "bench"


class Country(Base):
    """A country."""


class City(Base):
    """A city."""

    country = models.ForeignKey(Country, models.CASCADE)
    population = models.IntegerField()


class Company(Base):
    """A company."""

    city = models.ForeignKey(City, models.CASCADE)


class Department(Base):
    """A department."""

    company = models.ForeignKey(Company, models.CASCADE)


class Person(Base):
    """Somebody who orders; lives in one city and works for a company in another."""

    city = models.ForeignKey(City, models.CASCADE)
    department = models.ForeignKey(Department, models.CASCADE)
    score = models.IntegerField()


class Order(models.Model):
    """An order; on average each person has 2.5."""

    person = models.ForeignKey(Person, models.CASCADE)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    placed = models.DateTimeField()

    class Meta:
        app_label = "bench"


class Entry(Base):
    """What is inserted."""

    number = models.IntegerField()
    at = models.DateTimeField()


class Job(models.Model):
    """A queue, whose rows are nearly all done: one value of `status` is rare."""

    status = models.CharField(max_length=10, db_index=True)
    note = models.CharField(max_length=60)

    class Meta:
        app_label = "bench"


MODELS = (Country, City, Company, Department, Person, Order, Entry, Job)
