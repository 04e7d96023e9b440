package org.phonefit.check

import kotlin.system.exitProcess
import org.junit.runner.Description
import org.junit.runner.JUnitCore
import org.junit.runner.notification.Failure
import org.junit.runner.notification.RunListener

/** Runs the JUnit tests of the named classes and prints the name of each; exit status 1 when one fails or none ran. */
fun main(classes: Array<String>) {
    val core = JUnitCore()
    core.addListener(
        object : RunListener() {
            override fun testFinished(description: Description) = println(description.displayName)

            override fun testFailure(failure: Failure) = println("FAILED ${failure.testHeader}\n${failure.trace}")
        },
    )
    val result = core.run(*classes.map(Class<*>::forName).toTypedArray())
    if (!result.wasSuccessful() || result.runCount == 0) exitProcess(1)
}
